//! Names of subjects.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Incarnation, NodeId};

/// The length of a plain part.
const PLAIN_MAX: usize = 64;

/// The subject of the link messages to one incarnation of a node.
#[must_use]
pub fn node_subject(name: &str, node: &NodeId, incarnation: Incarnation) -> String {
    format!("sb1.{}.n.{}.{incarnation}", part(name), part(node.as_str()))
}

/// The subject of the beats of all nodes.
#[must_use]
pub fn beats_subject(name: &str) -> String {
    format!("sb1.{}.a", part(name))
}

/// The stream of a channel with history.
#[must_use]
pub fn history_stream(name: &str, channel: &str) -> String {
    format!("sb1_{}_h_{}", part(name), part(channel))
}

/// What the subjects of the logs of a channel begin with. `u` and the part of a user follow, or `s` on a shared channel.
#[must_use]
pub fn history_subjects(name: &str, channel: &str) -> String {
    format!("sb1.{}.h.{}", part(name), part(channel))
}

/// The stream of a bucket of the cluster.
#[must_use]
pub fn bucket_stream(name: &str, bucket: &str) -> String {
    format!("KV_sb1_{}_{bucket}", part(name))
}

/// What the subjects of the keys of a bucket begin with.
#[must_use]
pub fn bucket_subjects(name: &str, bucket: &str) -> String {
    format!("$KV.sb1_{}_{bucket}", part(name))
}

/// Returns a text as one part of a subject: as it is if it is plain, else `=` and its base64url.
#[must_use]
pub fn part(text: &str) -> String {
    match is_plain(text) {
        true => text.to_owned(),
        false => format!("={}", URL_SAFE_NO_PAD.encode(text)),
    }
}

/// Returns whether a text consists of 1 to 64 letters, digits, `_` and `-`.
pub(super) fn is_plain(text: &str) -> bool {
    (1..=PLAIN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_plain_or_encoded() {
        for (text, part) in [
            ("site-a_1", "site-a_1".to_owned()),
            ("", "=".to_owned()),
            ("a.b", "=YS5i".to_owned()),
            ("*", "=Kg".to_owned()),
            ("é", "=w6k".to_owned()),
            (&"a".repeat(64), "a".repeat(64)),
            (&"a".repeat(65), format!("={}", URL_SAFE_NO_PAD.encode("a".repeat(65)))),
        ] {
            assert_eq!(super::part(text), part, "{text}");
        }
    }

    #[test]
    fn subjects_name_the_cluster_the_node_and_its_incarnation() {
        let incarnation = "000102030405060708090a0b0c0d0e0f".parse().unwrap();
        let node = NodeId::new("node-1").unwrap();
        assert_eq!(node_subject("s", &node, incarnation), "sb1.s.n.node-1.000102030405060708090a0b0c0d0e0f");
        assert_eq!(beats_subject("a.b"), "sb1.=YS5i.a");
        assert_eq!(history_stream("s", "Calls"), "sb1_s_h_Calls");
        assert_eq!(history_subjects("s", "a.b"), "sb1.s.h.=YS5i");
        assert_eq!(bucket_stream("s", "leases"), "KV_sb1_s_leases");
        assert_eq!(bucket_subjects("s", "leases"), "$KV.sb1_s_leases");
    }
}
