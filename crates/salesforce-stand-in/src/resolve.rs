//! Resolves names in a statement to fields, through relationships, if the caller may read them.

use serde_json::Value;

use super::query::View;
use super::reply::Refusal;
use super::schema::{Field, Object};
use super::soql::{Path, refuse_at};
use super::store::Row;

/// Longer chains of relationships are refused.
const RELATIONSHIPS_MAX: usize = 5;

/// A field and the references that lead to it.
pub(super) struct Resolved<'s> {
    pub(super) through: Vec<Step<'s>>,
    pub(super) object: &'s Object,
    pub(super) field: &'s Field,
}

/// One reference on the way.
pub(super) struct Step<'s> {
    /// `User__r`
    pub(super) name: String,
    /// `User__c`
    pub(super) field: &'s Field,
    pub(super) target: &'s Object,
}

impl Resolved<'_> {
    /// The name with its relationships.
    pub(super) fn name(&self) -> String {
        let steps = self.through.iter().map(|it| it.name.as_str());
        steps.chain([self.field.name.as_str()]).collect::<Vec<_>>().join(".")
    }

    /// Itself, if WHERE may use it.
    pub(super) fn filterable(self, view: &View<'_>) -> Result<Self, Refusal> {
        self.usable(view, "filtered in a query call")
    }

    /// Itself, if ORDER BY may use it.
    pub(super) fn sortable(self, view: &View<'_>) -> Result<Self, Refusal> {
        self.usable(view, "sorted in a query call")
    }

    fn usable(self, view: &View<'_>, how: &str) -> Result<Self, Refusal> {
        match self.field.filterable() {
            true => Ok(self),
            false => {
                let at = view.text.find(&self.field.name).unwrap_or_default();
                let message = format!("field '{}' can not be {how}", self.field.name);
                Err(refuse_at("INVALID_FIELD", view.text, at, &message))
            }
        }
    }
}

/// Resolves a path to a field.
pub(super) fn resolve<'q>(view: &View<'q>, object: &'q Object, path: &Path) -> Result<Resolved<'q>, Refusal> {
    let unknown = |what: &str, name: &str, object: &Object| {
        let message = format!(
            "{what} '{name}' on entity '{}'. If you are attempting to use a custom field, be sure to append the \
             '__c' after the custom field name. Please reference your WSDL or the describe call for the appropriate \
             names.",
            object.name
        );
        refuse_at("INVALID_FIELD", view.text, path.at, &message)
    };
    let mut through = Vec::new();
    let mut current = object;
    for name in path.relationships.iter().take(RELATIONSHIPS_MAX + 1) {
        let field = current.reference(name).filter(|it| view.caller.reads(current, it));
        let target = field.and_then(|it| view.caller.object(view.schema, it.references.as_deref()?).ok());
        let (Some(field), Some(target), true) = (field, target, through.len() < RELATIONSHIPS_MAX) else {
            return Err(unknown("Didn't understand relationship", name, current));
        };
        through.push(Step { name: field.relationship().unwrap_or_default(), field, target });
        current = target;
    }
    match view.caller.field(current, &path.field) {
        Some(field) => Ok(Resolved { through, object: current, field }),
        None => Err(unknown("No such column", &path.field, current)),
    }
}

/// The value of the field in a row; null if a reference on the way is null.
pub(super) fn value<'q>(view: &View<'q>, resolved: &Resolved<'_>, row: &'q Row) -> &'q Value {
    let mut row = row;
    for step in &resolved.through {
        let next = row.value(&step.field.name).as_str().and_then(|id| view.store.row(&step.target.name, id));
        let Some(next) = next else { return &Value::Null };
        row = next;
    }
    row.value(&resolved.field.name)
}
