//! Addresses as identities: `ip` ACL expressions and how Java spells an address.
//!
//! Counterpart: `IPAuthenticationProvider`. An expression is an address, optionally with `/bits`;
//! addresses of different families never match, and an IPv4 address inside an IPv6 one is refused.

use std::net::{IpAddr, Ipv6Addr};

/// The address as Java's `getHostAddress` spells it (IPv6 without `::`); an IPv4 peer on a dual-stack
/// socket is an IPv4 address.
#[must_use]
pub fn canonical_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let segments = v6.segments().map(|segment| format!("{segment:x}"));
            segments.join(":")
        }
    }
}

/// Whether `expression` may stand in an ACL.
pub(super) fn is_valid_expression(expression: &str) -> bool {
    parse(expression).is_some()
}

/// Whether `address` (as [`canonical_address`] spells it) is in the range of `expression`.
pub(super) fn matches(address: &str, expression: &str) -> bool {
    let (Some((address, _)), Some((range, bits))) = (parse(address), parse(expression)) else {
        return false;
    };
    match (address, range) {
        (IpAddr::V4(a), IpAddr::V4(r)) => {
            same_prefix(u128::from(a.to_bits()), u128::from(r.to_bits()), 32 - bits)
        }
        (IpAddr::V6(a), IpAddr::V6(r)) => same_prefix(a.to_bits(), r.to_bits(), 128 - bits),
        _ => false,
    }
}

fn same_prefix(a: u128, b: u128, ignored_bits: u32) -> bool {
    (a ^ b).checked_shr(ignored_bits).unwrap_or(0) == 0
}

/// Address and number of leading bits that count.
fn parse(expression: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match expression.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (expression, None),
    };
    let address = parse_v4(address).or_else(|| parse_v6(address))?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        None => width,
        Some(text) => text.parse().ok().filter(|bits| *bits <= width)?,
    };
    Some((address, bits))
}

/// Four decimal numbers; leading zeros are decimal too, as for Java's `parseInt`.
fn parse_v4(text: &str) -> Option<IpAddr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = parts.next()?.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn parse_v6(text: &str) -> Option<IpAddr> {
    let address: Ipv6Addr = text.parse().ok()?;
    (address.to_ipv4_mapped().is_none() && !text.contains('.')).then_some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_spelling() {
        for (address, spelled) in [
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "0:0:0:0:0:0:0:1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("fe80::1:2", "fe80:0:0:0:0:0:1:2"),
        ] {
            assert_eq!(canonical_address(address.parse().unwrap()), spelled);
        }
    }

    #[test]
    fn expressions() {
        for good in [
            "127.0.0.1",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::1",
            "2001:db8::/32",
            "1:2:3:4:5:6:7:8/128",
        ] {
            assert!(is_valid_expression(good), "{good}");
        }
        for bad in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "256.0.0.1",
            "1.2.3.4/33",
            "1.2.3.4/-1",
            "1.2.3.4/",
            "::1/129",
            "::ffff:1.2.3.4",
            "::1/x",
            "localhost",
        ] {
            assert!(!is_valid_expression(bad), "{bad}");
        }
    }

    #[test]
    fn masks() {
        assert!(matches("10.1.2.3", "10.0.0.0/8"));
        assert!(!matches("11.1.2.3", "10.0.0.0/8"));
        assert!(matches("11.1.2.3", "10.0.0.0/0"));
        assert!(matches("1.2.3.4", "1.2.3.4"));
        assert!(matches("2001:db8:0:0:0:0:0:1", "2001:db8::/32"));
        assert!(!matches("2001:db9:0:0:0:0:0:1", "2001:db8::/32"));
        assert!(matches("2001:db9:0:0:0:0:0:1", "::/0"));
        assert!(!matches("1.2.3.4", "::/0"), "families never mix");
        assert!(!matches("0:0:0:0:0:0:0:1", "0.0.0.0/0"));
    }
}
