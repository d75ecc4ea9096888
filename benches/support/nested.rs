//! What the benches of envelopes read.

/// An envelope as applications send it: nested, with strings, numbers and text that is not ASCII.
pub(crate) fn envelope(bytes: usize) -> String {
    let row = r#"{"id":4711,"name":"Müller \"Fritz\"","queue":"support","waiting":12.5,"tags":["vip",null,true]}"#;
    let rows = vec![row; bytes / row.len() + 1].join(",");
    format!(
        r#"{{"channel":"Phone","topic":"Call","subtopic":"Ringing","source":"softphone","id":"m1","data":{{"rows":[{rows}]}}}}"#
    )
}
