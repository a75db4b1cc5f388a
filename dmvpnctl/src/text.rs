//! Numbers as people read them.

use rpc::agent::Traffic;

/// A span of time by its two largest units: `4d2h`, `3m12s`, `45s`, `300ms`.
#[must_use]
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes, seconds) {
        (1.., 0, _, _) => format!("{days}d"),
        (1.., _, _, _) => format!("{days}d{hours}h"),
        (0, 1.., 0, _) => format!("{hours}h"),
        (0, 1.., _, _) => format!("{hours}h{minutes}m"),
        (0, 0, 1.., _) if seconds.is_multiple_of(60) => format!("{minutes}m"),
        (0, 0, 1.., _) => format!("{minutes}m{}s", seconds % 60),
        (0, 0, 0, 1..) => format!("{seconds}s"),
        (0, 0, 0, 0) => format!("{ms}ms"),
    }
}

/// An amount of octets: `834M`, `1.2G`, `512`.
#[must_use]
pub fn octets(amount: u64) -> String {
    let units = ["", "k", "M", "G", "T", "P", "E"];
    let mut scale = 1_u64;
    let mut unit = 0;
    while amount / scale >= 1000 && unit + 1 < units.len() {
        scale *= 1000;
        unit += 1;
    }
    let (whole, tenth) = (amount / scale, amount % scale * 10 / scale);
    let unit = units.get(unit).copied().unwrap_or_default();
    if scale > 1 && whole < 10 { format!("{whole}.{tenth}{unit}") } else { format!("{whole}{unit}") }
}

/// Received and sent: `1.2G/834M`.
#[must_use]
pub fn traffic(traffic: Option<&Traffic>) -> String {
    traffic.map_or_else(String::new, |t| format!("{}/{}", octets(t.rx_bytes), octets(t.tx_bytes)))
}

/// A round trip: `12.3ms`, `0.85ms`; not measured: nothing.
#[must_use]
pub fn round_trip(us: u64) -> String {
    match us {
        0 => String::new(),
        1..1000 => format!("0.{:02}ms", us / 10),
        1000..100_000 => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        _ => format!("{}ms", us / 1000),
    }
}

/// A moment as RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn moment(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

/// The Gregorian date of a day since 1970-01-01. Years begin on 1 March here, so that the leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_000, "1s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (192_000, "3m12s"),
            (3_600_000, "1h"),
            (3_725_000, "1h2m"),
            (86_400_000, "1d"),
            (352_800_000, "4d2h"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn octets_are_short() {
        for (amount, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (9_999, "9.9k"),
            (10_000, "10k"),
            (834_000_000, "834M"),
            (1_234_567_890, "1.2G"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(octets(amount), text);
        }
    }

    #[test]
    fn round_trips_are_milliseconds() {
        for (us, text) in [(0, ""), (5, "0.00ms"), (850, "0.85ms"), (12_345, "12.3ms"), (123_456, "123ms")] {
            assert_eq!(round_trip(us), text);
        }
    }

    #[test]
    fn moments_are_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_001, "2025-01-01T00:00:00.001Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(moment(ms), text);
        }
    }
}
