//! `[salesforce.objects.NAME]` and `[salesforce.variables]`.

use std::time::Duration;

use super::salesforce::no_login;
use super::{Given, check_file, load};

const LOGIN: &str = "auth.mode = 'open'\n[salesforce]\nclient_id = '3MVG9'\nusername = 'switchboard@example.com'\n\
                     private_key_file = 'key.pem'\n";

#[test]
fn the_tables_of_objects_and_variables_are_read() {
    let file = format!(
        "{LOGIN}[salesforce.objects.Task]\nupdate = true\ncreate = true\ndisplay_field = 'Subject'\n\
         external_id = 'Request__c'\ncall_field = 'CallObject'\nfields = {{ disposition = 'CallDisposition', 'the subject' = 'Subject' }}\n\
         [salesforce.objects.'Lead or so']\nobject = 'Lead'\nupdate = true\n[salesforce.objects.'Lead or so'.fields]\nphone = 'Phone'\n\
         [salesforce.variables]\nkeep = '1h'\nwrite_on = ['Cisco/InboundCall/*']\ncall_id = 'call.id'\nstate = 'call.event'\n\
         states = ['Dropped']\nobject = 'Task'\n"
    );
    let org = load(&Given { file: Some(&file), ..Given::default() }).unwrap().salesforce;
    let task = &org.objects["Task"];
    assert_eq!((task.object.as_str(), task.update, task.create), ("Task", true, true));
    assert_eq!(
        (task.fields["disposition"].as_str(), task.fields["the subject"].as_str()),
        ("CallDisposition", "Subject")
    );
    assert_eq!(task.external_id, "Request__c");
    let lead = &org.objects["Lead or so"];
    assert_eq!((lead.object.as_str(), lead.update, lead.create), ("Lead", true, false));
    assert_eq!(lead.fields["phone"], "Phone");
    let variables = org.variables;
    assert_eq!((variables.keep, variables.variables), (Duration::from_hours(1), 100));
    assert_eq!(variables.write_on[0].to_string(), "Cisco/InboundCall/*");
    assert_eq!((variables.call_id.as_str(), variables.object.as_str()), ("call.id", "Task"));
}

#[test]
fn the_summary_says_what_may_be_written() {
    check_file(
        &format!(
            "{LOGIN}[salesforce.objects.Case]\nupdate = true\n[salesforce.objects.Task]\nupdate = true\ncreate = true\n\
             external_id = 'R__c'\n[salesforce.objects.Lead]\n"
        ),
        "warning: [salesforce.objects.Lead] allows nothing: neither update nor create is true
         mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         records: Salesforce, https://login.salesforce.com as switchboard@example.com; Case (update), Lead (nothing), Task (update and create)",
    );
    check_file(
        "auth.mode = 'open'\nsalesforce.variables.keep = '1h'",
        "warning: [salesforce.variables] is not used: there is no [salesforce.objects.NAME]
         mode: open, for development: no token is asked
         listen: 127.0.0.1:7420, [::1]:7420
         not default: salesforce.variables.keep = 1h",
    );
}

#[test]
fn objects_need_a_way_to_log_in_whatever_store_there_is() {
    check_file(
        "auth.mode = 'open'\n[salesforce.credentials]\nmode = 'apex'\n[salesforce.objects.Task]\nupdate = true\n",
        &no_login(4),
    );
}

#[test]
fn what_could_not_be_written_is_a_mistake() {
    check_file(
        &format!(
            "{LOGIN}[salesforce.objects.Task]\ncreate = true\nfields = {{ a = 'Subject', b = 'subject', '' = 'X', c = 'X.Y', d = 1 }}\n\
             [salesforce.objects.'a b']\nupdate = true\n[salesforce.objects.Case]\nupdate = true\nupdates = true\nfields = ['x']\n\
             [salesforce.objects.Lead]\ncreate = true\nexternal_id = 'X__c'\nfields = {{ a = 'X__c' }}\n"
        ),
        "8: salesforce.objects.Task.fields.: the name must not be empty
         8: salesforce.objects.Task.fields.c: must be the API name of a field of the object itself, such as Subject or Phase__c
         8: salesforce.objects.Task.fields.d: must be a text in quotes
         9: salesforce.objects.\"a b\".object: is missing: the table's name is not the API name of an object
         13: salesforce.objects.Case.updates: unknown key
         hint: did you mean update?
         14: salesforce.objects.Case.fields: must be a table of names and texts: { name = \"text\" }
         15: salesforce.objects.Lead.fields: names X__c twice: fields, external_id and call_field are fields of their own",
    );
    check_file(
        &format!("{LOGIN}[salesforce.objects.Task]\ncreate = true\nfields = {{ a = 'Subject', b = 'subject' }}\n"),
        "6: salesforce.objects.Task.external_id: is missing: create = true needs a Text field with 'External ID', so that a request which is asked again makes no second record
         6: salesforce.objects.Task.fields: names subject twice: fields, external_id and call_field are fields of their own",
    );
    check_file(
        "auth.mode = 'open'\nsalesforce.objects = 3",
        "2: salesforce.objects: must be tables: [salesforce.objects.NAME]",
    );
    check_file(
        "auth.mode = 'open'\nsalesforce.objects.Task = 3",
        "2: salesforce.objects.Task: must be a table: [salesforce.objects.Task]",
    );
}

#[test]
fn variables_go_to_an_object_that_can_be_found_and_changed() {
    check_file(
        &format!(
            "{LOGIN}[salesforce.objects.Task]\nupdate = true\n[salesforce.variables]\nobject = 'Task'\nstates = ['Dropped']\n\
             call_id = 'call..id'\nwrite_on = ['Broker/*/*']\nkeep = '1ms'\n"
        ),
        "9: salesforce.variables.object: must be the NAME of a table [salesforce.objects.NAME] with update = true and call_field
         10: salesforce.variables.states: goes with salesforce.variables.state: where an event says it, and what counts
         11: salesforce.variables.call_id: must be a key, or keys with dots between them, such as call.id
         12: salesforce.variables.write_on[0]: must not name the channel Broker, which is the broker's own
         13: salesforce.variables.keep: must be at least 1s",
    );
}
