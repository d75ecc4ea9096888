//! The objects and fields of an org, including standard ones. The rows are in `store`.

use serde::Deserialize;
use serde_json::Value;

/// Every object of an org.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) objects: Vec<Object>,
}

impl Schema {
    /// The object of this name, ignoring case.
    pub(super) fn object(&self, name: &str) -> Option<&Object> {
        self.objects.iter().find(|it| it.name.eq_ignore_ascii_case(name))
    }
}

/// An object: a table with a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Object {
    pub(super) name: String,
    #[serde(default)]
    label: Option<String>,
    /// The first three characters of its ids.
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) fields: Vec<Field>,
    /// Users, by username, without read access to the object.
    #[serde(default)]
    pub(super) hidden_from: Vec<String>,
    /// Users, by username, who may only read it.
    #[serde(default)]
    pub(super) read_only_for: Vec<String>,
}

/// A field of an object.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the checkboxes of a field's page in Setup")]
pub(super) struct Field {
    pub(super) name: String,
    #[serde(default)]
    label: Option<String>,
    #[serde(default, rename = "type")]
    pub(super) kind: Kind,
    #[serde(default = "default_length")]
    pub(super) length: usize,
    #[serde(default)]
    pub(super) required: bool,
    #[serde(default)]
    pub(super) unique: bool,
    #[serde(default)]
    pub(super) case_sensitive: bool,
    #[serde(default)]
    pub(super) external_id: bool,
    /// The object that a reference points to.
    #[serde(default)]
    pub(super) references: Option<String>,
    #[serde(default)]
    pub(super) default: Option<Value>,
    /// How an encrypted field is masked for users who may not view encrypted data.
    #[serde(default)]
    pub(super) mask: Mask,
    /// Users, by username, for whom field-level security hides it.
    #[serde(default)]
    pub(super) hidden_from: Vec<String>,
    /// Users, by username, who may only read it.
    #[serde(default)]
    pub(super) read_only_for: Vec<String>,
    /// Written only by the org.
    #[serde(skip)]
    pub(super) system: bool,
}

/// The type of a field.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// The record's own id.
    Id,
    /// Another record's id.
    Reference,
    /// A line of text.
    #[default]
    String,
    /// Text that WHERE cannot use if it is long.
    TextArea,
    /// Text (Encrypted) of Classic Encryption.
    EncryptedString,
    /// An address for mail.
    Email,
    /// A telephone number, as text.
    Phone,
    /// A link.
    Url,
    /// A picklist; its values are not checked.
    Picklist,
    /// A checkbox.
    Boolean,
    /// A whole number.
    Int,
    /// A number.
    Double,
    /// A day.
    Date,
    /// A date and time.
    DateTime,
}

/// Which characters a mask shows.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mask {
    /// None, with asterisks.
    #[default]
    All,
    /// None, with the letter X.
    AllX,
    /// The last four characters.
    LastFour,
}

fn default_length() -> usize {
    255
}

impl Kind {
    /// The name that describe uses.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Id => "id",
            Self::Reference => "reference",
            Self::String => "string",
            Self::TextArea => "textarea",
            Self::EncryptedString => "encryptedstring",
            Self::Email => "email",
            Self::Phone => "phone",
            Self::Url => "url",
            Self::Picklist => "picklist",
            Self::Boolean => "boolean",
            Self::Int => "int",
            Self::Double => "double",
            Self::Date => "date",
            Self::DateTime => "datetime",
        }
    }

    /// Whether its values are JSON strings that WHERE compares with quoted literals.
    pub(super) fn is_text(self) -> bool {
        !matches!(self, Self::Boolean | Self::Int | Self::Double | Self::Date | Self::DateTime)
    }

    /// Whether its values are ids.
    pub(super) fn is_id(self) -> bool {
        matches!(self, Self::Id | Self::Reference)
    }
}

impl Mask {
    /// The value as the mask shows it.
    pub(super) fn over(self, value: &str) -> String {
        let length = value.chars().count();
        match self {
            Self::All => "*".repeat(length),
            Self::AllX => "X".repeat(length),
            Self::LastFour => {
                let hidden = length.saturating_sub(4);
                value.chars().enumerate().map(|(at, it)| if at < hidden { '*' } else { it }).collect()
            }
        }
    }
}

impl Field {
    fn new(name: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            label: None,
            kind,
            length: default_length(),
            required: false,
            unique: false,
            case_sensitive: false,
            external_id: false,
            references: None,
            default: None,
            mask: Mask::default(),
            hidden_from: Vec::new(),
            read_only_for: Vec::new(),
            system: false,
        }
    }

    fn system(name: &str, kind: Kind) -> Self {
        Self { system: true, ..Self::new(name, kind) }
    }

    fn reference(name: &str, to: &str) -> Self {
        Self { references: Some(to.to_owned()), ..Self::new(name, Kind::Reference) }
    }

    /// The label.
    pub(super) fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.name.trim_end_matches("__c").replace('_', " "))
    }

    /// Whether it is a custom one.
    pub(super) fn custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// Whether WHERE may use it.
    pub(super) fn filterable(&self) -> bool {
        match self.kind {
            Kind::EncryptedString => false,
            Kind::TextArea => self.length <= 255,
            _ => true,
        }
    }

    /// The name that leads through a reference: `User__r` of `User__c`, `Owner` of `OwnerId`.
    pub(super) fn relationship(&self) -> Option<String> {
        self.references.as_ref()?;
        Some(match self.name.strip_suffix("__c") {
            Some(custom) => format!("{custom}__r"),
            None => self.name.strip_suffix("Id").unwrap_or(&self.name).to_owned(),
        })
    }
}

impl Object {
    fn standard(name: &str, prefix: &str, fields: Vec<Field>) -> Self {
        Self {
            name: name.to_owned(),
            label: None,
            prefix: prefix.to_owned(),
            fields,
            hidden_from: Vec::new(),
            read_only_for: Vec::new(),
        }
    }

    /// The label.
    pub(super) fn label(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.name.trim_end_matches("__c").replace('_', " "))
    }

    /// Whether it is a custom one.
    pub(super) fn custom(&self) -> bool {
        self.name.ends_with("__c")
    }

    /// The field of this name, ignoring case.
    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|it| it.name.eq_ignore_ascii_case(name))
    }

    /// The reference that a relationship name leads through.
    pub(super) fn reference(&self, relationship: &str) -> Option<&Field> {
        self.fields.iter().find(|it| it.relationship().is_some_and(|it| it.eq_ignore_ascii_case(relationship)))
    }

    /// Adds the fields that every object has.
    pub(super) fn complete(&mut self) {
        let mut system = vec![
            Field::system("Id", Kind::Id),
            Field::system("IsDeleted", Kind::Boolean),
            Field::system("CreatedDate", Kind::DateTime),
            Field::system("LastModifiedDate", Kind::DateTime),
            Field::system("SystemModstamp", Kind::DateTime),
        ];
        for name in ["CreatedById", "LastModifiedById"] {
            system.push(Field { system: true, ..Field::reference(name, "User") });
        }
        if self.custom() {
            system.push(Field::reference("OwnerId", "User"));
            system.push(Field { length: 80, ..Field::new("Name", Kind::String) });
        }
        system.retain(|it| self.field(&it.name).is_none());
        self.fields.splice(0..0, system);
    }
}

/// The standard objects that clients of the broker use.
pub(super) fn standard() -> Vec<Object> {
    let text = |names: &[&str]| names.iter().map(|it| Field::new(it, Kind::String)).collect::<Vec<_>>();
    let mut user = text(&["Username", "FirstName", "LastName", "Name", "FederationIdentifier", "Extension", "Alias"]);
    user.push(Field::new("Email", Kind::Email));
    user.push(Field::new("Phone", Kind::Phone));
    user.push(Field::new("MobilePhone", Kind::Phone));
    user.push(Field::new("IsActive", Kind::Boolean));
    let mut contact = text(&["FirstName", "Name"]);
    contact.push(Field { required: true, length: 80, ..Field::new("LastName", Kind::String) });
    contact.push(Field::new("Phone", Kind::Phone));
    contact.push(Field::new("Email", Kind::Email));
    contact.push(Field::reference("AccountId", "Account"));
    let account = vec![
        Field { required: true, ..Field::new("Name", Kind::String) },
        Field::new("Phone", Kind::Phone),
        Field { length: 32_000, ..Field::new("Description", Kind::TextArea) },
    ];
    let mut task = text(&["Subject", "Status", "CallDisposition", "CallObject", "CallType"]);
    task.push(Field::new("CallDurationInSeconds", Kind::Int));
    task.push(Field { length: 32_000, ..Field::new("Description", Kind::TextArea) });
    task.push(Field::reference("WhoId", "Contact"));
    task.push(Field::reference("OwnerId", "User"));
    let mut case = text(&["Subject", "Status", "Origin", "CaseNumber"]);
    case.push(Field::reference("ContactId", "Contact"));
    let mut permission_set = text(&["Name", "Label"]);
    permission_set.push(Field::new("PermissionsViewEncryptedData", Kind::Boolean));
    permission_set.push(Field::new("PermissionsApiEnabled", Kind::Boolean));
    let assignment = vec![Field::reference("AssigneeId", "User"), Field::reference("PermissionSetId", "PermissionSet")];
    let mut organization = text(&["Name", "OrganizationType"]);
    organization.push(Field::new("IsSandbox", Kind::Boolean));
    vec![
        Object::standard("User", "005", user),
        Object::standard("Organization", "00D", organization),
        Object::standard("PermissionSet", "0PS", permission_set),
        Object::standard("PermissionSetAssignment", "0Pa", assignment),
        Object::standard("Account", "001", account),
        Object::standard("Contact", "003", contact),
        Object::standard("Case", "500", case),
        Object::standard("Task", "00T", task),
    ]
}
