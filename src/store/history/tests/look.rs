//! A history that is looked at while it is written.

use super::*;
use crate::store::FolderLock;

#[test]
fn a_history_is_read_while_a_broker_writes_it() {
    let folder = tempfile::tempdir().unwrap();
    let settings = HistorySettings { data_dir: folder.path().to_owned(), key: KeySource::DataFolder };
    assert_eq!(Look::new(&settings).logs(), Ok(None));
    let lock = FolderLock::take(folder.path()).unwrap();
    let mut history = HistoryFile::open(&settings, LIMITS, &lock, &mut |_| {}).unwrap();
    let phone = log("Phone", Some("alice"));
    for offset in 1..=3 {
        history.apply(now(), 1000, &[append(&phone, offset, "a call")]).unwrap();
        let lines = Look::new(&settings).logs().unwrap().unwrap();
        assert_eq!(lines.iter().map(|line| (line.first, line.last)).collect::<Vec<_>>(), [(1, offset)]);
        assert_eq!(lines[0].bytes, history.bytes());
    }
    drop((history, lock));
    let mut texts = Vec::new();
    Look::new(&settings).entries(&mut |_, _, offset, entry| texts.push(format!("{offset} {}", entry.text))).unwrap();
    assert_eq!(texts, ["1 a call", "2 a call", "3 a call"]);
    #[cfg(unix)]
    {
        let metadata = std::fs::metadata(settings.file()).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600);
    }
}
