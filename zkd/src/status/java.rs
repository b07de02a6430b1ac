//! Numbers and dates as Java prints them.

use std::fmt::Write as _;

/// A mean as Apache shows it: rounded to four decimals, then `Double.toString`, so `0.0`, `14.6667`,
/// `5.0E-4` or `1.23456789E7`.
pub(super) fn mean(value: f64) -> String {
    let rounded = (value * 10_000.0).round() / 10_000.0;
    if rounded == 0.0 || (1e-3..1e7).contains(&rounded) {
        return format!("{rounded:?}");
    }
    let scientific = format!("{rounded:E}");
    match scientific.split_once('E') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        _ => scientific,
    }
}

/// A time as `Date.toString` shows it on a server whose time zone is UTC: `Sun Nov 22 06:43:13 UTC 2026`.
pub(super) fn date(wall_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = wall_ms.div_euclid(1000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], index: i64| {
        usize::try_from(index).map_or("", |index| names.get(index).copied().unwrap_or(""))
    };
    let mut text = String::new();
    write!(
        text,
        "{} {} {day:02} {:02}:{:02}:{:02} UTC {year}",
        name(&DAYS, days.rem_euclid(7)),
        name(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60
    )
    .expect("a String takes any text");
    text
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are counted from
/// March, so that the leap day is the last of its year, in eras of 400 years.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means() {
        for (value, text) in [
            (0.0, "0.0"),
            (14.666_666, "14.6667"),
            (0.2345, "0.2345"),
            (0.0005, "5.0E-4"),
            (0.000_05, "1.0E-4"),
            (0.000_04, "0.0"),
            (0.001, "0.001"),
            (3.0, "3.0"),
            (9_999_999.5, "9999999.5"),
            (12_345_678.9, "1.23456789E7"),
            (1e7, "1.0E7"),
        ] {
            assert_eq!(mean(value), text, "{value}");
        }
    }

    #[test]
    fn dates() {
        for (wall_ms, text) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (1_795_329_793_000, "Sun Nov 22 06:43:13 UTC 2026"),
            (951_782_400_000, "Tue Feb 29 00:00:00 UTC 2000"),
            (4_107_542_399_999, "Sun Feb 28 23:59:59 UTC 2100"),
            (-1, "Wed Dec 31 23:59:59 UTC 1969"),
        ] {
            assert_eq!(date(wall_ms), text, "{wall_ms}");
        }
    }
}
