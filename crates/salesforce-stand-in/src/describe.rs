//! `describe`: the objects and fields that the caller may read; field-level security hides the others.

use serde_json::{Map, Value, json};

use super::caller::Caller;
use super::reply::Reply;
use super::schema::{Field, Kind, Object, Schema};

/// `/sobjects`
pub(super) fn all(schema: &Schema, caller: &Caller) -> Reply {
    let visible = schema.objects.iter().filter(|it| caller.object(schema, &it.name).is_ok());
    let sobjects: Vec<_> = visible.map(|it| brief(caller, it)).collect();
    Reply::ok(&json!({ "encoding": "UTF-8", "maxBatchSize": 200, "sobjects": sobjects }))
}

/// `/sobjects/OBJECT/describe`
pub(super) fn one(caller: &Caller, object: &Object) -> Reply {
    let mut told = brief(caller, object);
    if let Value::Object(told) = &mut told {
        let visible = object.fields.iter().filter(|it| caller.reads(object, it));
        told.insert("fields".to_owned(), visible.map(|it| field(caller, object, it)).collect());
        told.insert("childRelationships".to_owned(), json!([]));
        told.insert("recordTypeInfos".to_owned(), json!([]));
    }
    Reply::ok(&told)
}

/// An object's entry in the list of objects.
pub(super) fn brief(caller: &Caller, object: &Object) -> Value {
    let writes = caller.writes_object(object);
    let url = format!("/services/data/v{}.0/sobjects/{}", caller.version, object.name);
    json!({
        "name": object.name,
        "label": object.label(),
        "labelPlural": format!("{}s", object.label()),
        "keyPrefix": object.prefix,
        "custom": object.custom(),
        "customSetting": false,
        "activateable": false,
        "createable": writes,
        "updateable": writes,
        "deletable": writes,
        "queryable": true,
        "retrieveable": true,
        "searchable": true,
        "deprecatedAndHidden": false,
        "urls": {
            "sobject": url,
            "describe": format!("{url}/describe"),
            "rowTemplate": format!("{url}/{{ID}}"),
        },
    })
}

fn field(caller: &Caller, object: &Object, field: &Field) -> Value {
    let writes = caller.writes_object(object) && caller.writes(object, field);
    let length = match field.kind {
        Kind::Id | Kind::Reference => 18,
        kind if kind.is_text() => field.length,
        _ => 0,
    };
    let soap = match field.kind {
        Kind::Id | Kind::Reference => "tns:ID",
        Kind::Boolean => "xsd:boolean",
        Kind::Int => "xsd:int",
        Kind::Double => "xsd:double",
        Kind::Date => "xsd:date",
        Kind::DateTime => "xsd:dateTime",
        _ => "xsd:string",
    };
    let mut told = Map::new();
    let mut tell = |name: &str, value: Value| told.insert(name.to_owned(), value);
    tell("name", json!(field.name));
    tell("label", json!(field.label()));
    tell("type", json!(field.kind.name()));
    tell("soapType", json!(soap));
    tell("length", json!(length));
    tell("custom", json!(field.custom()));
    tell("createable", json!(writes));
    tell("updateable", json!(writes));
    tell("nillable", json!(!field.required && !field.system && field.kind != Kind::Boolean));
    tell("defaultedOnCreate", json!(field.system || field.default.is_some()));
    tell("defaultValue", field.default.clone().unwrap_or_default());
    tell("unique", json!(field.unique));
    tell("caseSensitive", json!(field.case_sensitive));
    tell("externalId", json!(field.external_id));
    tell("idLookup", json!(field.external_id || field.kind == Kind::Id));
    tell("encrypted", json!(field.kind == Kind::EncryptedString));
    tell("filterable", json!(field.filterable()));
    tell("sortable", json!(field.filterable()));
    tell("groupable", json!(field.filterable()));
    tell("calculated", json!(false));
    tell("relationshipName", json!(field.relationship()));
    tell("referenceTo", json!(field.references.iter().collect::<Vec<_>>()));
    tell("picklistValues", json!([]));
    Value::Object(told)
}
