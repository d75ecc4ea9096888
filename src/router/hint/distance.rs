//! How many slips of the pen turn one name into another.

/// Longer parts are not compared.
pub(super) const PART_BYTES_MAX: usize = 32;

/// One slip in this number of bytes is forgiven, and one in shorter parts.
const BYTES_PER_SLIP: usize = 4;

/// The length of a row of the matrix.
const ROW: usize = PART_BYTES_MAX + 1;

/// The number of slips (a byte too many, missing, wrong, or two swapped) between two parts that differ: the optimal string
/// alignment distance. `None`: they have nothing to do with each other, or one of them is too long to compare.
pub(super) fn slips(own: &str, other: &str) -> Option<usize> {
    let (own, other) = (own.as_bytes(), other.as_bytes());
    let most = (own.len() / BYTES_PER_SLIP).max(1);
    let is_comparable = own.len().max(other.len()) <= PART_BYTES_MAX && own.len().abs_diff(other.len()) <= most;
    if own == other || !is_comparable {
        return None;
    }
    let (mut before, mut above, mut row) = ([0; ROW], [0; ROW], [0; ROW]);
    above.iter_mut().enumerate().for_each(|(at, cell)| *cell = at);
    let mut last = None;
    for (done, &byte) in own.iter().enumerate() {
        let least = fill(&mut row, &above, &before, done, (byte, last), other);
        if least > most {
            // Each further row is at least as far away.
            return None;
        }
        last = Some(byte);
        (before, above) = (above, row);
    }
    above.get(other.len()).copied().filter(|slips| *slips <= most)
}

/// Fills the row of one byte, and returns its least cell.
fn fill(
    row: &mut [usize; ROW],
    above: &[usize; ROW],
    before: &[usize; ROW],
    done: usize,
    (byte, last): (u8, Option<u8>),
    other: &[u8],
) -> usize {
    let cell = |row: &[usize; ROW], at: usize| row.get(at).copied().unwrap_or(ROW);
    let (mut left, mut least, mut previous) = (done + 1, done + 1, None);
    row[0] = left;
    for (at, &others) in other.iter().enumerate() {
        let replaced = cell(above, at) + usize::from(byte != others);
        let mut slips = replaced.min(left + 1).min(cell(above, at + 1) + 1);
        if at > 0 && last == Some(others) && previous == Some(byte) {
            slips = slips.min(cell(before, at - 1) + 1);
        }
        if let Some(place) = row.get_mut(at + 1) {
            *place = slips;
        }
        (left, least, previous) = (slips, least.min(slips), Some(others));
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_counted() {
        for (own, other, expected) in [
            ("makecall", "makecal", Some(1)),
            ("makecall", "maekcall", Some(1)),
            ("makecall", "makeacall", Some(1)),
            ("makecall", "nakecell", Some(2)),
            ("makecall", "nakeceli", None),
            ("ring", "rung", Some(1)),
            ("ring", "rang it", None),
            ("a", "b", Some(1)),
            ("", "a", Some(1)),
            ("ring", "ring", None),
        ] {
            assert_eq!(slips(own, other), expected, "{own} {other}");
            assert_eq!(
                slips(own, other).is_some(),
                strsim::osa_distance(own, other) <= (own.len() / 4).max(1) && own != other
            );
        }
    }

    #[test]
    fn long_parts_are_not_compared() {
        let (long, longer) = ("x".repeat(PART_BYTES_MAX), "x".repeat(PART_BYTES_MAX + 1));
        assert_eq!(slips(&long, &longer), None);
        assert_eq!(slips(&longer, &long), None);
        assert_eq!(slips(&long, &"y".repeat(PART_BYTES_MAX)), None);
    }
}
