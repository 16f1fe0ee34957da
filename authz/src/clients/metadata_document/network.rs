//! Where documents may be fetched from (CIMD-06): the hosts that the site names, at addresses that it names.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Addresses with a common beginning (CIDR, RFC 4632).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    base: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is not a valid network; write it like 10.20.0.0/16, or 10.20.0.7/32 for one address")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (base, prefix) = text.split_once('/').ok_or(NotANetwork)?;
        let base: IpAddr = base.parse().map_err(|_| NotANetwork)?;
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or(NotANetwork)?;
        // An IPv4 address in IPv6 clothes is compared without them, so it cannot be written in them.
        if base.to_canonical() != base || prefix > bits(base) {
            return Err(NotANetwork);
        }
        let network = Self { base, prefix };
        // 10.1.2.3/8 was meant to be something else.
        if network.masked(base) != Some(number(base)) {
            return Err(NotANetwork);
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self { base: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix }
    }

    const fn v6(base: Ipv6Addr, prefix: u8) -> Self {
        Self { base: IpAddr::V6(base), prefix }
    }

    /// The beginning of an address that counts here; `None` if it is of the other family.
    fn masked(self, address: IpAddr) -> Option<u128> {
        if self.base.is_ipv4() != address.is_ipv4() {
            return None;
        }
        let dropped = u32::from(bits(self.base) - self.prefix);
        Some(number(address).checked_shr(dropped).unwrap_or(0).checked_shl(dropped).unwrap_or(0))
    }

    fn contains(self, address: IpAddr) -> bool {
        self.masked(address).is_some_and(|beginning| Some(beginning) == self.masked(self.base))
    }

    fn is_within(self, wider: Self) -> bool {
        self.prefix >= wider.prefix && wider.contains(self.base)
    }

    /// Whether a document may be fetched from this address because the site named this network. Special-use
    /// addresses (RFC 6890) count as named only by a network of their own: `0.0.0.0/0` names no loopback address.
    pub(crate) fn admits(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let special = SPECIAL.iter().filter(|special| special.contains(address));
        self.contains(address)
            && !never(address)
            && special.into_iter().all(|special| self.is_within(*special))
    }
}

/// Addresses of no computer, or of many.
fn never(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST)
}

/// Special-use addresses (RFC 6890 and IANA's registries). An isolated network is made of them, so each that is
/// meant has to be named.
const SPECIAL: [Network; 29] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
    Network::v4(169, 254, 0, 0, 16),
    Network::v4(172, 16, 0, 0, 12),
    Network::v4(192, 0, 0, 0, 24),
    Network::v4(192, 0, 2, 0, 24),
    Network::v4(192, 31, 196, 0, 24),
    Network::v4(192, 52, 193, 0, 24),
    Network::v4(192, 88, 99, 0, 24),
    Network::v4(192, 168, 0, 0, 16),
    Network::v4(192, 175, 48, 0, 24),
    Network::v4(198, 18, 0, 0, 15),
    Network::v4(198, 51, 100, 0, 24),
    Network::v4(203, 0, 113, 0, 24),
    Network::v4(240, 0, 0, 0, 4),
    Network::v6(Ipv6Addr::LOCALHOST, 128),
    // What carries an IPv4 address: NAT64, 6to4, Teredo, and the forms that were given up.
    Network::v6(Ipv6Addr::UNSPECIFIED, 96),
    Network::v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    Network::v6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    Network::v6(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Network::v6(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Network::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    Network::v6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    Network::v6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    Network::v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Network::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
    Network::v6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().admits(address.parse().unwrap())
    }

    /// CIMD-06: a resolved address must lie in what was named.
    #[test]
    fn a_network_admits_its_own_addresses() {
        for (network, address) in [
            ("10.20.0.0/16", "10.20.255.255"),
            ("10.20.0.7/32", "10.20.0.7"),
            ("127.0.0.1/32", "127.0.0.1"),
            ("127.0.0.0/8", "127.9.9.9"),
            ("192.168.0.0/16", "192.168.1.1"),
            ("fd00::/8", "fd12::1"),
            ("::1/128", "::1"),
            ("0.0.0.0/0", "93.184.215.14"),
            ("2000::/3", "2a00::1"),
            // The same computer in IPv6 clothes.
            ("10.20.0.0/16", "::ffff:10.20.0.1"),
        ] {
            assert!(admits(network, address), "{network} {address}");
        }
    }

    /// CIMD-06: special-use addresses need a network of their own; mapped ones are looked at without their clothes.
    #[test]
    fn a_network_admits_nothing_else() {
        for (network, address) in [
            ("10.20.0.0/16", "10.21.0.0"),
            ("10.20.0.7/32", "10.20.0.8"),
            ("0.0.0.0/0", "127.0.0.1"),
            ("0.0.0.0/0", "10.0.0.1"),
            ("0.0.0.0/0", "169.254.169.254"),
            ("0.0.0.0/0", "100.64.0.1"),
            ("0.0.0.0/0", "::ffff:127.0.0.1"),
            ("::/0", "::1"),
            ("::/0", "::ffff:127.0.0.1"),
            ("::/0", "::127.0.0.1"),
            ("::/0", "64:ff9b::7f00:1"),
            ("::/0", "2002:7f00:1::"),
            ("::/0", "fe80::1"),
            ("::/0", "fd00::1"),
            ("::/1", "::1"),
            ("2000::/3", "2001::1"),
            ("8.0.0.0/5", "10.0.0.1"),
            ("10.0.0.0/8", "fd00::1"),
            ("0.0.0.0/8", "0.0.0.0"),
            ("224.0.0.0/4", "224.0.0.1"),
            ("255.255.255.255/32", "255.255.255.255"),
            ("ff00::/8", "ff02::1"),
            ("::/128", "::"),
        ] {
            assert!(!admits(network, address), "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network() {
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0/8",
            "a/8",
            "0x0a.0.0.0/8",
            "::/129",
            "::ffff:10.0.0.0/104",
            "::ffff:10.0.0.1/128",
            "010.0.0.0/8",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        for good in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/8"] {
            assert_eq!(good.parse::<Network>().unwrap().to_string(), good);
        }
    }
}
