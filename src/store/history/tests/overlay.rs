//! A file as it would be after some writes.

use proptest::prelude::*;
use redb::StorageBackend;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn an_overlay_reads_as_a_file_that_was_written_to(
        under in proptest::collection::vec(any::<u8>(), 0..20_000),
        steps in proptest::collection::vec((any::<bool>(), 0..30_000_usize, 0..9000_usize, any::<u8>()), 0..20),
    ) {
        let overlay = disk::Overlay::new(disk::Backend::new(FaultyDisk::with(under.clone()))).unwrap();
        let mut model = under;
        for (is_write, at, len, byte) in steps {
            if is_write {
                let fits = at + len <= model.len();
                prop_assert_eq!(overlay.write(at as u64, &vec![byte; len]).is_ok(), fits);
                if fits {
                    model[at..at + len].fill(byte);
                }
            } else {
                overlay.set_len(at as u64).unwrap();
                model.resize(at, 0);
            }
            let mut all = vec![0; model.len()];
            overlay.read(0, &mut all).unwrap();
            prop_assert!(all == model);
        }
    }
}
