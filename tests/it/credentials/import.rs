//! Imports of CSV and JSON files: what is read, what is refused, and what a spreadsheet may have done to the values.

use std::ffi::OsStr;
use std::path::Path;

use secrecy::ExposeSecret;
use switchboard::credentials::{Delimiter, read_import};

use super::command::{Desk, Run};
use super::{SECRET, store_with_alice};

/// Reads a file that has this name and these contents: the users that are good, the words about the others.
fn check_import(name: &str, contents: impl AsRef<[u8]>, users: &[&str], faults: &[&str]) {
    let read = read_import(Path::new(name), contents.as_ref(), Delimiter::Auto).unwrap();
    let found: Vec<_> = read.entries.iter().map(|entry| entry.user.as_str()).collect();
    assert_eq!(found, users);
    let found: Vec<_> = read.faults.iter().map(ToString::to_string).collect();
    assert_eq!(found, faults);
    assert!(!found.iter().any(|fault| fault.contains(SECRET)));
}

#[test]
fn csv_is_read_as_spreadsheets_write_it() {
    let head = "user,username,password,extension,adfs_username\n";
    check_import("a.csv", format!("{head}a,u,p,1,\nb,u,p,2,corp\\b\n"), &["a", "b"], &[]);
    check_import("a.csv", format!("\u{feff}{head}a,u,p,1,\n").replace('\n', "\r\n"), &["a"], &[]);
    check_import("a.csv", "extension,password,user,username\n1,p,a,u\n\n2,p,b,u", &["a", "b"], &[]);
    check_import("a.txt", format!("{head}a,u,\"p,\"\"q\"\"\",1,\n"), &["a"], &[]);
    check_import("a.csv", head, &[], &[]);
    check_import(
        "a.csv",
        format!(
            "{head}a,u,p,1,\n,u,{SECRET},1,\nb,u,,1,\na,u,p,2,\nc,u,p\nd,u,p,1,x,y\ne,u,\"two\nlines\",1,\nf,{},p,1,\n",
            "x".repeat(129)
        ),
        &["a"],
        &[
            "row 2 (line 3): user must not be empty",
            "row 3 (line 4): password must not be empty",
            "row 4 (line 5): the user is in row 1 already",
            "row 5 (line 6): 3 fields, where the first line has 5",
            "row 6 (line 7): 6 fields, where the first line has 5",
            "row 7 (line 8): password must not contain control characters",
            "row 8 (line 10): username must not be longer than 128 bytes",
        ],
    );
    check_import(
        "a.csv",
        [head.as_bytes(), b"a,u,\xff,1,\nb,u,p,1,\n"].concat(),
        &["b"],
        &["row 1 (line 2): password is not UTF-8"],
    );
}

#[test]
fn json_is_read_object_by_object() {
    check_import(
        "a.json",
        r#" [{"user":"a","username":"u","password":"p","extension":"1"},
            {"adfs_username":null,"extension":"1","password":"p\u00e9","username":"u","user":"b"}]"#,
        &["a", "b"],
        &[],
    );
    check_import("agents", "\u{feff}\n[]", &[], &[]);
    let rows = [
        r#"{"user":"a","username":"u","password":"p","extension":"1","adfs_username":"x"}"#,
        "null",
        r#"{"user":"b","username":"u","password":"p"}"#,
        r#"{"user":"b","username":"u","password":"p","extension":5051}"#,
        r#"{"user":"b","user":"c","username":"u","password":"p","extension":"1"}"#,
        r#"{"user":"b","username":"u","password":null,"extension":"1"}"#,
        r#"{"user":"b","username":"u","password":"\ud800","extension":"1"}"#,
        r#"{"user":"b","username":"u","passwort":"acq@123-never-shown","extension":"1"}"#,
        r#"{"user":"a","username":"u","password":"p","extension":"1"}"#,
        r#"{"user":"b\u0000","username":"u","password":"p","extension":"1"}"#,
    ];
    check_import(
        "a.json",
        format!("[{}]", rows.join(",")),
        &["a"],
        &[
            "row 2: not an object",
            "row 3: extension is missing",
            "row 4: extension has to be a string",
            "row 5: user occurs twice",
            "row 6: password has to be a string",
            "row 7: password has an escape that is not a character",
            "row 8: a key that is none of user, username, password, extension, adfs_username",
            "row 9: the user is in row 1 already",
            "row 10: user must not contain control characters",
        ],
    );
}

#[test]
fn a_file_that_is_no_import_is_refused_as_a_whole() {
    let columns = "user,username,password,extension,adfs_username";
    for (name, contents, why) in [
        ("a.csv", b"".as_slice(), format!("the file is empty; its first line has to be {columns}")),
        ("a.csv", b"user,username,password\n", "the column 'extension' is missing from the first line".to_owned()),
        ("a.csv", b"user,username,secret,extension\n", format!("column 3 of the first line is none of {columns}")),
        (
            "a.csv",
            b"user,user,username,password,extension\n",
            "the column 'user' is in the first line twice".to_owned(),
        ),
        ("a.csv", b"\xff\xfeu\0s\0x", "the file begins as UTF-16 and is not valid UTF-16; save it as UTF-8".to_owned()),
        ("a.json", b"[{}", "line 1, column 3: this is not JSON".to_owned()),
        ("a.json", b"[] x", "line 1, column 4: this is not JSON".to_owned()),
        (
            "a",
            b"{\"user\":\"a\"}",
            "the file has to be a JSON array of objects with user, username, password, extension, adfs_username"
                .to_owned(),
        ),
    ] {
        assert_eq!(read_import(Path::new(name), contents, Delimiter::Auto).map(|_| ()).unwrap_err(), why);
    }
}

#[test]
fn an_import_is_all_or_nothing_unless_partial() {
    let desk = Desk::new();
    drop(store_with_alice(&desk.data()));
    let good = "user,username,password,extension\nalice@example.com,u,new,1\nbob,u,p,2\n";
    let bad = desk.file("bad.csv", format!("{good},u,{SECRET},3\n"));
    let run = |desk: &Desk, file: &Path, flags: &[&str]| {
        let arguments = [OsStr::new("import"), file.as_os_str()].into_iter().chain(flags.iter().map(OsStr::new));
        desk.run(arguments, "")
    };
    let Run(code, out, err) = run(&desk, &bad, &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("row 3 (line 4): user must not be empty") && err.contains("nothing was imported"), "{err}");
    assert_eq!((desk.password("bob"), desk.password("alice@example.com").unwrap()), (None, SECRET.to_owned()));

    let Run(code, out, err) = run(&desk, &bad, &["--partial"]);
    assert_eq!((code, out), (1, format!("imported 2 users, 1 of them replaced, in {}\n", desk.data().display())));
    assert!(err.contains("row 3 (line 4)") && err.contains("1 of 3 rows"), "{err}");
    assert_eq!(
        (desk.password("bob").unwrap(), desk.password("alice@example.com").unwrap()),
        ("p".into(), "new".into())
    );

    assert_eq!(run(&desk, &desk.file("good.csv", good), &[]).0, 0);
    assert_eq!(run(&desk, &desk.file("wrong.csv", "a,b\n"), &["--partial"]).0, 1);
    assert_eq!(run(&desk, Path::new("absent.csv"), &[]).0, 2);
}

/// The line of columns.
const HEAD: &str = "user,username,password,extension";

fn import(desk: &Desk, name: &str, contents: impl AsRef<[u8]>, flags: &[&str]) -> Run {
    let file = desk.file(name, contents);
    desk.run([OsStr::new("import"), file.as_os_str()].into_iter().chain(flags.iter().map(OsStr::new)), "")
}

/// Reads CSV, with its warnings.
fn warnings(contents: &str) -> Vec<String> {
    let read = read_import(Path::new("a.csv"), contents.as_bytes(), Delimiter::Auto).unwrap();
    assert_eq!(read.faults, []);
    read.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn the_separator_is_recognised_and_can_be_named() {
    for separator in [",", ";", "\t"] {
        let text = [HEAD.replace(',', separator), ["a", "u", "\"p,;\"", "1"].join(separator)].join("\n");
        check_import("a.csv", &text, &["a"], &[]);
    }
    let desk = Desk::new();
    let semicolons = format!("{HEAD}\na,u,p,1\n").replace(',', ";");
    for delimiter in ["auto", ";", "semicolon"] {
        assert_eq!(import(&desk, "a.csv", &semicolons, &["--delimiter", delimiter]).0, 0, "{delimiter}");
    }
    let tabs = semicolons.replace(';', "\t");
    assert_eq!(import(&desk, "a.csv", &tabs, &["--delimiter", "tab"]).0, 0);
    let Run(code, _, err) = import(&desk, "a.csv", &semicolons, &["--delimiter", ","]);
    assert!(code == 1 && err.contains("another separator than --delimiter names"), "{err}");
    assert_eq!(import(&desk, "a.csv", &semicolons, &["--delimiter", "|"]).0, 2);
}

#[test]
fn utf_16_with_a_byte_order_mark_is_read() {
    let text = format!("{HEAD}\njosé,u,p\u{1f511},1\n");
    let little: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
    for bytes in [little, big] {
        check_import("a.csv", &bytes, &["josé"], &[]);
        let read = read_import(Path::new("a.csv"), &bytes, Delimiter::Auto).unwrap();
        assert_eq!(read.entries[0].credentials.password.expose_secret(), "p\u{1f511}");
    }
}

#[test]
fn a_value_is_stored_as_it_is_or_its_row_is_bad() {
    let text_after = "has text after its closing quote; a quote inside quotes is written twice";
    let blank_before = "has white space before its opening quote";
    let never = "has an opening quote that is never closed, so the rest of the file belongs to it";
    for (row, fault) in [
        ("u,1,\"pa\"ss,5", format!("password {text_after}")),
        ("u,1,\"pa\" ,5", format!("password {text_after}")),
        ("\"u\"x,1,p,5", format!("user {text_after}")),
        ("u,1,p,\"5\"\"\"1", format!("extension {text_after}")),
        ("u,1, \"p\",5", format!("password {blank_before}")),
        ("u,1,\"p,5", format!("password {never}")),
    ] {
        check_import("a.csv", format!("{HEAD}\n{row}\n"), &[], &[&format!("row 1 (line 2): {fault}")]);
    }
    // The row after a bad one is read as it should be.
    check_import(
        "a.csv",
        format!("{HEAD}\nu,1,\"pa\"s\"s,5\nv,1,p,5\n"),
        &["v"],
        &[&format!("row 1 (line 2): password {text_after}")],
    );
    for (field, stored) in [
        ("\"pa\"\"ss\"", "pa\"ss"),
        ("\"\"\"\"", "\""),
        ("pa\"ss", "pa\"ss"),
        ("\" p \"", " p "),
        (" p ", " p "),
        ("=1+1", "=1+1"),
        ("0051", "0051"),
    ] {
        let text = format!("{HEAD}\nu,1,{field},5\n");
        let read = read_import(Path::new("a.csv"), text.as_bytes(), Delimiter::Auto).unwrap();
        assert_eq!(read.entries[0].credentials.password.expose_secret(), stored, "{field}");
    }
}

#[test]
fn line_numbers_are_those_of_an_editor() {
    for end in ["\n", "\r\n", "\r"] {
        let lines = [HEAD, "", "a,u,,1", ",,,", "\"b", "c\",u,p,1", "  ", "d,u,,1"];
        check_import(
            "a.csv",
            lines.join(end),
            &[],
            &[
                "row 1 (line 3): password must not be empty",
                "row 2 (line 5): user must not contain control characters",
                "row 3 (line 8): password must not be empty",
            ],
        );
    }
}

#[test]
fn empty_rows_are_skipped_and_counted() {
    let desk = Desk::new();
    let Run(code, out, err) = import(&desk, "a.csv", format!("\n{HEAD}\n,,,\na,u,p,1\n\n , ,,\n\"\",,,\n"), &[]);
    assert_eq!((code, out), (0, format!("imported 1 user, 0 of them replaced, in {}\n", desk.data().display())));
    assert!(err.contains("skipped 4 empty rows"), "{err}");
}

#[test]
fn a_file_without_rows_is_refused() {
    let desk = Desk::new();
    for (contents, why) in [
        (format!("{HEAD}\n"), "the file has no rows, so nothing was imported"),
        (HEAD.to_owned(), "the file has no rows, so nothing was imported"),
        (format!("{HEAD}\n,,,\n"), "all rows of the file are empty, so nothing was imported"),
        ("[]".to_owned(), "the file has no rows, so nothing was imported"),
    ] {
        let Run(code, out, err) = import(&desk, "agents", &contents, &[]);
        assert!(code == 1 && out.is_empty() && err.contains(why), "{contents:?}: {err}");
    }
    assert!(!desk.data().exists());
}

#[test]
fn a_first_line_that_is_not_the_columns_is_named() {
    let columns = "user,username,password,extension,adfs_username";
    for (first, why) in [
        ("User,username,password,extension", "column 1 of the first line is 'user' in other letter case; write 'user'"),
        (
            "user,username,password, extension",
            "column 4 of the first line is 'extension' with white space; remove that",
        ),
        ("user,username,passwort,extension", "column 3 of the first line is not a column; did you mean 'password'?"),
        ("user,user name,password,extension", "column 2 of the first line is 'username' with white space; remove that"),
        ("user,user_name,password,extension", "column 2 of the first line is not a column; did you mean 'username'?"),
        ("user,username,password,extension,", "column 5 of the first line is empty; remove that column"),
        (
            "user,username,password,extension,adfs-username",
            "column 5 of the first line is 'adfs_username' in other letter case; write 'adfs_username'",
        ),
        ("sep=;", "the first line is a separator line of Excel; remove it"),
        ("SEP=,", "the first line is a separator line of Excel; remove it"),
        (
            "alice,1245456,acq@123-never-shown,5051",
            &format!("the first line does not name the columns: it has to be {columns}"),
        ),
        (
            "PK\u{3}\u{4}xyz",
            "the file is a workbook (.xlsx or .ods) or another zip file; save the sheet as CSV in UTF-8",
        ),
        ("u\0s\0", "the file is not text; save the sheet as CSV in UTF-8"),
    ] {
        let text = format!("{first}\nalice,u,p,1\n");
        let found = read_import(Path::new("a.csv"), text.as_bytes(), Delimiter::Auto).unwrap_err();
        assert!(found.contains(why) && !found.contains(SECRET), "{first:?}: {found}");
    }
}

#[test]
fn marks_of_a_spreadsheet_are_never_stored_in_silence() {
    check_import(
        "a.csv",
        format!("{HEAD}\na,u,p,=\"0051\"\nb,#N/A,p,1\nc,u,p,4.9E+10\nd,u,p,####\n=\"e\",u,p,1\n"),
        &[],
        &[
            "row 1 (line 2): extension is a formula (=\"...\") of a spreadsheet; write the value alone",
            "row 2 (line 3): username is an error value of a spreadsheet",
            "row 3 (line 4): extension is a number that a spreadsheet rounded (1.2E+10); make the column text",
            "row 4 (line 5): extension is what a spreadsheet shows in a column that is too narrow",
            "row 5 (line 6): user is a formula (=\"...\") of a spreadsheet; write the value alone",
        ],
    );
    assert_eq!(
        warnings(&format!("{HEAD}\na,u,=\"0051\",1\nb,u,p,'0051\nc,u,p,5051.0\nd,u,p,1\n")),
        [
            "row 1 (line 2): password is a formula (=\"...\") of a spreadsheet; write the value alone",
            "row 2 (line 3): extension begins with an apostrophe, which spreadsheets put before a number that is text",
            "row 3 (line 4): extension ends in .0, as a number of a spreadsheet does",
        ]
    );
}

#[test]
fn blanks_around_a_value_and_users_that_differ_in_case_are_warnings() {
    let blank = "begins or ends with white space or an invisible character, which is kept";
    assert_eq!(
        warnings(&format!(
            "{HEAD}\nalice ,u,p,1\n\u{a0}bob,u,p,1\ncarol\u{200b},u,p,1\ndave,u, p,1\nDave,u,p,1\nerin,u,p,1\n"
        )),
        [
            format!("row 1 (line 2): user {blank}"),
            format!("row 2 (line 3): user {blank}"),
            format!("row 3 (line 4): user {blank}"),
            format!("row 4 (line 5): password {blank}"),
            "row 5 (line 6): the user differs from that of row 4 only in letter case, and is another user".to_owned(),
        ]
    );
    let desk = Desk::new();
    drop(store_with_alice(&desk.data()));
    let Run(code, _, err) = import(&desk, "a.csv", format!("{HEAD}\nbob,u,p,1\nAlice@example.com,u,p,1\n"), &[]);
    assert!(
        code == 0 && err.contains("row 2 (line 3): the user differs from a stored one only in letter case"),
        "{err}"
    );
    // One that is stored as it is written is not a twin of itself.
    assert_eq!(import(&desk, "a.csv", format!("{HEAD}\nAlice@example.com,u,p,1\n"), &[]).2, "");
}

#[test]
fn a_dry_run_prints_what_would_change_and_stores_nothing() {
    let desk = Desk::new();
    let text = format!("{HEAD}\nalice@example.com,1245456,new,5052\nbob,u,p,2\n");
    let Run(code, out, _) = import(&desk, "a.csv", &text, &["--dry-run"]);
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "add 'alice@example.com'\nadd 'bob'\ndry run: 2 to add, 0 to replace, 0 the same; nothing was stored\n"
    );
    assert!(!desk.data().exists());

    drop(store_with_alice(&desk.data()));
    let same = desk.file("same.csv", format!("{HEAD}\ncarol,u,p,1\n"));
    assert_eq!(desk.run([OsStr::new("import"), same.as_os_str()], "").0, 0);
    let Run(code, out, err) = import(&desk, "a.csv", format!("{text}carol,u,p,1\n,u,p,1\n"), &["--dry-run"]);
    assert!((code, out.as_str()) == (1, "") && err.contains("nothing would be imported: 1 of 4 rows is bad"), "{err}");
    let Run(code, out, err) =
        import(&desk, "a.csv", format!("{text}carol,u,p,1\n,u,p,1\n"), &["--dry-run", "--partial"]);
    assert!(code == 1 && err.contains("1 of 4 rows is bad and would be skipped"), "{err}");
    insta::assert_snapshot!(out, @r"
    replace 'alice@example.com': password, extension
    add 'bob'
    keep 'carol'
    dry run: 1 to add, 1 to replace, 1 the same; nothing was stored
    ");
    assert_eq!((desk.password("bob"), desk.password("alice@example.com").unwrap()), (None, SECRET.to_owned()));
}
