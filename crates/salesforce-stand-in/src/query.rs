//! `/query`: the results of a statement, page by page.

use std::collections::VecDeque;

use hyper::Method;
use serde_json::{Map, Value, json};

use super::call::Call;
use super::caller::Caller;
use super::compare::{Bound, rank};
use super::org::State;
use super::reply::{Refusal, Reply};
use super::resolve::{Resolved, resolve, value};
use super::schema::{Object, Schema};
use super::soql::{self, Query, refuse_at};
use super::store::{Row, Store};

/// The most unfinished queries that are remembered; the oldest is forgotten first.
const CURSORS_MAX: usize = 100;

/// The fewest and the most rows of a page that a caller may ask for.
const BATCH: (usize, usize) = (200, 2_000);

/// Queries of which not every row has been fetched.
#[derive(Default)]
pub(super) struct Cursors {
    open: VecDeque<Cursor>,
    made: u64,
}

struct Cursor {
    id: String,
    user: String,
    batch: usize,
    records: Vec<Value>,
}

/// Answers `/query?q=…` and `/query/CURSOR-ROW`.
pub(super) fn answer(state: &mut State, caller: &Caller, call: &Call, below: &[&str]) -> Result<Reply, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::method("GET,HEAD"));
    }
    match (below, call.parameter("q")) {
        ([], Some(text)) => first_page(state, caller, call, text),
        ([], None) => Err(Refusal::bad("MALFORMED_QUERY", "A query string has to be specified")),
        ([locator], _) => next_page(state, caller, locator),
        _ => Err(Refusal::not_found()),
    }
}

fn first_page(state: &mut State, caller: &Caller, call: &Call, text: &str) -> Result<Reply, Refusal> {
    let query = soql::parse(text)?;
    let (total, records) = find(&state.schema, &state.store, caller, text, &query)?;
    if query.count {
        return Ok(Reply::ok(&json!({ "totalSize": total, "done": true, "records": [] })));
    }
    let batch = asked_batch(call).unwrap_or(state.organization.batch_size).min(state.organization.batch_size).max(1);
    state.cursors.made += 1;
    let id = format!("01g{:012}AAA", state.cursors.made);
    let cursor = Cursor { id, user: caller.user.id.clone(), batch, records };
    let reply = page(caller, &cursor, 0);
    if cursor.records.len() > batch {
        if state.cursors.open.len() >= CURSORS_MAX {
            state.cursors.open.pop_front();
        }
        state.cursors.open.push_back(cursor);
    }
    Ok(reply)
}

fn next_page(state: &State, caller: &Caller, locator: &str) -> Result<Reply, Refusal> {
    let invalid = || Refusal::bad("INVALID_QUERY_LOCATOR", "invalid query locator");
    let (id, from) = locator.split_once('-').ok_or_else(invalid)?;
    let from: usize = from.parse().map_err(|_| invalid())?;
    let cursor = state.cursors.open.iter().find(|it| it.id == id && it.user == caller.user.id);
    let cursor = cursor.filter(|it| from < it.records.len()).ok_or_else(invalid)?;
    Ok(page(caller, cursor, from))
}

fn page(caller: &Caller, cursor: &Cursor, from: usize) -> Reply {
    let total = cursor.records.len();
    let end = total.min(from.saturating_add(cursor.batch));
    let mut body = Map::new();
    body.insert("totalSize".to_owned(), json!(total));
    body.insert("done".to_owned(), json!(end == total));
    if end < total {
        let next = format!("/services/data/v{}.0/query/{}-{end}", caller.version, cursor.id);
        body.insert("nextRecordsUrl".to_owned(), json!(next));
    }
    body.insert("records".to_owned(), json!(cursor.records.get(from..end).unwrap_or_default()));
    Reply::ok(&Value::Object(body))
}

/// `Sforce-Query-Options: batchSize=500`.
fn asked_batch(call: &Call) -> Option<usize> {
    let options = call.header("sforce-query-options")?;
    let asked = options.split([',', ';']).find_map(|it| it.trim().strip_prefix("batchSize="))?;
    asked.trim().parse::<usize>().ok().map(|it| it.clamp(BATCH.0, BATCH.1))
}

/// The number of rows, and the rows as the caller reads them.
fn find(
    schema: &Schema,
    store: &Store,
    caller: &Caller,
    text: &str,
    query: &Query,
) -> Result<(usize, Vec<Value>), Refusal> {
    let object = schema.object(&query.object.text).and_then(|it| caller.object(schema, &it.name).ok());
    let object = object.ok_or_else(|| {
        let refusal = Refusal::no_object(&query.object.text);
        refuse_at(&refusal.code, text, query.object.at, &refusal.message)
    })?;
    let view = View { schema, store, caller, text };
    let fields = query.fields.iter().map(|it| resolve(&view, object, it)).collect::<Result<Vec<_>, _>>()?;
    for (at, field) in fields.iter().enumerate() {
        if fields.get(..at).is_some_and(|before| before.iter().any(|it| it.name() == field.name())) {
            return Err(Refusal::bad("INVALID_FIELD", format!("duplicate field selected: {}", field.name())));
        }
    }
    let condition = query.condition.as_ref().map(|it| Bound::bind(&view, object, it)).transpose()?;
    let order = query
        .order
        .iter()
        .map(|it| Ok((resolve(&view, object, &it.path)?.sortable(&view)?, it)))
        .collect::<Result<Vec<_>, Refusal>>()?;
    let rows = store.rows(&object.name).iter();
    let mut rows: Vec<&Row> = rows.filter(|row| condition.as_ref().is_none_or(|it| it.holds(&view, row))).collect();
    rows.sort_by(|one, other| {
        order.iter().fold(std::cmp::Ordering::Equal, |so_far, (field, order)| {
            so_far.then_with(|| rank(value(&view, field, one), value(&view, field, other), order))
        })
    });
    let twins;
    if caller.effects.two_rows {
        twins = rows.iter().map(|it| twin(it)).collect::<Vec<_>>();
        rows = rows.into_iter().zip(&twins).flat_map(|(row, twin)| [row, twin]).collect();
    }
    let rows = rows.into_iter().skip(query.offset).take(query.limit.unwrap_or(usize::MAX));
    let records: Vec<_> = rows.map(|row| record(&view, object, &fields, row)).collect();
    Ok((records.len(), records))
}

/// The context of a query.
pub(super) struct View<'q> {
    pub(super) schema: &'q Schema,
    pub(super) store: &'q Store,
    pub(super) caller: &'q Caller,
    pub(super) text: &'q str,
}

/// The same row once more, with an id of its own.
pub(super) fn twin(row: &Row) -> Row {
    let mut twin = row.clone();
    let id = format!("{}Z{}", row.id.get(..3).unwrap_or_default(), row.id.get(4..15).unwrap_or_default());
    twin.id = super::id::complete(&id).unwrap_or(id);
    twin.values.insert("Id".to_owned(), json!(twin.id));
    twin
}

fn record(view: &View<'_>, object: &Object, fields: &[Resolved<'_>], row: &Row) -> Value {
    let mut record = Map::new();
    record.insert("attributes".to_owned(), view.caller.attributes(object, &row.id));
    for field in fields {
        let shown = view.caller.shown(field.object, field.field, value(view, field, row));
        let Some((first, rest)) = field.through.split_first() else {
            record.insert(field.field.name.clone(), shown);
            continue;
        };
        nest(view, &mut record, row, (first, rest), (field, shown));
    }
    Value::Object(record)
}

/// Nests a value under the names of its relationships; a null reference makes the whole object null.
fn nest(
    view: &View<'_>,
    into: &mut Map<String, Value>,
    row: &Row,
    (step, rest): (&super::resolve::Step<'_>, &[super::resolve::Step<'_>]),
    (field, shown): (&Resolved<'_>, Value),
) {
    let next = row.value(&step.field.name).as_str().and_then(|id| view.store.row(&step.target.name, id));
    let Some(next) = next else {
        into.insert(step.name.clone(), Value::Null);
        return;
    };
    let attributes = view.caller.attributes(step.target, &next.id);
    let inner = into.entry(step.name.clone()).or_insert_with(|| json!({ "attributes": attributes }));
    let Value::Object(inner) = inner else { return };
    match rest.split_first() {
        Some((step, rest)) => nest(view, inner, next, (step, rest), (field, shown)),
        None => {
            inner.insert(field.field.name.clone(), shown);
        }
    }
}
