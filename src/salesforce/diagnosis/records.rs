//! Checks that the objects that messages write, and each of their fields, can be written, from the org's descriptions
//! for this user. Nothing is written.

use super::{Description, OBJECT_SETTINGS, Outcome, Steps, describe_path};
use crate::config::WritableObject;
use crate::salesforce::Org;
use crate::salesforce::client::{Call, Want};
use crate::salesforce::write_fault::Target;

/// The length of a SHA-256 in hex digits.
const KEY_LENGTH: u32 = 64;

/// One table, and where its steps go.
struct Table<'a> {
    name: &'a str,
    configured: &'a WritableObject,
    wrong: Vec<String>,
    doubtful: Vec<String>,
}

impl Org {
    /// Adds one step for each table `[salesforce.objects.NAME]`, or one for each problem with it.
    pub(super) async fn records(&self, steps: &mut Steps) {
        for (name, table) in &self.config.objects {
            if !table.update && !table.create {
                steps.add("records", Outcome::Skipped, format!("{name}: neither update nor create is true"));
                continue;
            }
            let object = &table.object;
            let target = Target { object, fields: table.fields.values().map(String::as_str).collect() };
            let path = describe_path(&self.config.api_version, object);
            let call = Call { target: Some(&target), ..Call::get(&path, Want::Description) };
            let description = match self.client.call(&call).await {
                Ok(reply) if reply.status == 200 => Description::read(&reply.body),
                Ok(_) => None,
                Err(fault) => {
                    steps.add("records", Outcome::Failed, format!("{name}: {}", fault.operator()));
                    continue;
                }
            };
            let Some(description) = description else {
                let told = format!(
                    "{name}: the object {object} does not exist, or may not be read. {OBJECT_SETTINGS} > {object}: 'Read'; or \
                     correct salesforce.objects.{name}.object"
                );
                steps.add("records", Outcome::Failed, told);
                continue;
            };
            let by_call = self.config.variables.object == *name;
            let mut judged = Table { name, configured: table, wrong: Vec::new(), doubtful: Vec::new() };
            judged.object(&description);
            judged.written(&description);
            judged.call_field(&description, by_call);
            judged.external_id(&description);
            judged.tell(steps);
        }
    }
}

impl Table<'_> {
    fn object(&mut self, description: &Description) {
        let WritableObject { object, update, create, .. } = self.configured;
        let lacking: Vec<&str> = [
            (*update && description.updateable == Some(false), "'Edit'"),
            (*create && description.createable == Some(false), "'Create'"),
        ]
        .iter()
        .filter_map(|(lacks, permission)| lacks.then_some(*permission))
        .collect();
        if lacking.is_empty() {
            return;
        }
        // Tasks and events have no permission of their own for it.
        let own = match self.is_activity() {
            true => "; System Permissions: 'Access Activities', 'Edit Tasks' or 'Edit Events'",
            false => "",
        };
        self.wrong.push(format!(
            "its records may not be written. {OBJECT_SETTINGS} > {object}: {}{own}",
            lacking.join(" and ")
        ));
    }

    /// Checks that the fields of `fields` and `call_field` exist and can be written in the ways that are on.
    fn written(&mut self, description: &Description) {
        let mut absent = Vec::new();
        let mut read_only = Vec::new();
        let mut computed = Vec::new();
        for name in self.configured.fields.values().chain(Some(&self.configured.call_field).filter(|it| !it.is_empty()))
        {
            match description.field(name) {
                None => absent.push(name.as_str()),
                Some(field) if field.is_computed() => computed.push(name.as_str()),
                Some(field) if !field.is_writable(self.configured.update, self.configured.create) => {
                    read_only.push(name.as_str());
                }
                Some(_) => {}
            }
        }
        self.complain(&absent, &read_only);
        if !computed.is_empty() {
            self.wrong.push(format!(
                "{}: Salesforce alone writes it (a formula, a roll-up, an automatic number): take it out of \
                 salesforce.objects.{}",
                computed.join(", "),
                self.name
            ));
        }
    }

    fn complain(&mut self, absent: &[&str], read_only: &[&str]) {
        let object = &self.configured.object;
        if !absent.is_empty() {
            self.wrong.push(format!(
                "{}: no such field, or field-level security hides it. {OBJECT_SETTINGS} > {object} > Field Permissions: \
                 'Read Access' and 'Edit Access'; or correct salesforce.objects.{}",
                absent.join(", "),
                self.name
            ));
        }
        // If the object cannot be written, neither can any of its fields, whatever their permissions.
        if !read_only.is_empty() && self.wrong.iter().all(|it| !it.starts_with("its records")) {
            self.wrong.push(format!(
                "{} may be read, but not written. {OBJECT_SETTINGS} > {object} > Field Permissions: 'Edit Access'",
                read_only.join(", ")
            ));
        }
    }

    /// Checks the field by which a call's record is looked up.
    fn call_field(&mut self, description: &Description, by_call: bool) {
        let name = &self.configured.call_field;
        if by_call && description.field(name).is_some_and(|it| it.filterable == Some(false)) {
            self.wrong.push(format!(
                "{name} cannot be searched, so that no call's record is found by it: make \
                 salesforce.objects.{}.call_field a Text field that is not encrypted",
                self.name
            ));
        }
    }

    /// Checks the field that identifies a repeated request.
    fn external_id(&mut self, description: &Description) {
        let WritableObject { object, create, external_id: name, .. } = self.configured;
        if !create {
            return;
        }
        let place = match self.is_activity() {
            true => "Setup > Object Manager > Activity > Fields & Relationships".to_owned(),
            false => format!("Setup > Object Manager > {object} > Fields & Relationships"),
        };
        let Some(field) = description.field(name) else {
            return self.wrong.push(format!(
                "{name}: no such field, or field-level security hides it. {place} > New: Text, length {KEY_LENGTH}, 'External \
                 ID', 'Unique'; then {OBJECT_SETTINGS} > {object} > Field Permissions: 'Edit Access'"
            ));
        };
        if !field.is_writable(false, true) {
            self.complain(&[], &[name]);
        }
        if field.external_id == Some(false) {
            self.wrong.push(format!("{name} is not an External ID. {place} > {name} > Edit: 'External ID'"));
        }
        if field.length.is_some_and(|it| it < KEY_LENGTH) || !field.r#type.is_empty() && field.r#type != "string" {
            self.wrong.push(format!(
                "{name} cannot hold {KEY_LENGTH} characters. {place} > {name}: Text, length {KEY_LENGTH}"
            ));
        }
        if field.unique == Some(false) && !self.is_activity() {
            self.doubtful.push(format!(
                "{name} is not unique, so that a request that is asked again around a restart may make a second record. {place} > \
                 {name} > Edit: 'Unique', 'treat \"ABC\" and \"abc\" as different'"
            ));
        }
    }

    fn is_activity(&self) -> bool {
        ["Task", "Event"].iter().any(|it| self.configured.object.eq_ignore_ascii_case(it))
    }

    fn tell(self, steps: &mut Steps) {
        let Self { name, configured: table, wrong, doubtful } = self;
        let well = wrong.is_empty() && doubtful.is_empty();
        for (outcome, told) in [(Outcome::Failed, wrong), (Outcome::Warning, doubtful)] {
            for told in told {
                steps.add("records", outcome, format!("{name}: {told}"));
            }
        }
        if !well {
            return;
        }
        let fields: Vec<&str> = table.fields.values().map(String::as_str).collect();
        let may = match (table.update, table.create) {
            (true, true) => "changed and made",
            (false, _) => "made",
            (true, false) => "changed",
        };
        let told = format!("{name}: records of {} may be {may}, with {}", table.object, fields.join(", "));
        steps.add("records", Outcome::Passed, told);
    }
}
