//! Networks in the configuration, and the addresses that belong to each (CIMD-06, HTTP-02, SRC-12).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// A range of addresses (CIDR, RFC 4632).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network(IpNet);

/// The text is not a network.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotANetwork {
    #[error("write it like 10.20.0.0/16 or fd00::/8, or 10.20.0.7/32 for one address")]
    Syntax,
    /// Host bits are set, as in `10.1.2.3/8`. Taken literally it would mean millions of addresses.
    #[error("it has bits set after its prefix; write {0}")]
    HostBits(Network),
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (base, prefix) = text.split_once('/').ok_or(NotANetwork::Syntax)?;
        let base: IpAddr = base.parse().map_err(|_| NotANetwork::Syntax)?;
        let digits = prefix.bytes().all(|b| b.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or(NotANetwork::Syntax)?;
        // IPv4-mapped addresses are compared as IPv4, so a network in that form would match nothing.
        if base.to_canonical() != base {
            return Err(NotANetwork::Syntax);
        }
        let named = IpNet::new(base, prefix).map_err(|_| NotANetwork::Syntax)?;
        if named.trunc() == named { Ok(Self(named)) } else { Err(NotANetwork::HostBits(Self(named.trunc()))) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Parses a network, or a single address.
    ///
    /// # Errors
    /// If it is neither.
    pub fn or_address(text: &str) -> Result<Self, NotANetwork> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(address.into())),
            Err(_) => text.parse(),
        }
    }

    const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Self {
        Self(IpNet::new_assert(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), prefix))
    }

    const fn v6(base: Ipv6Addr, prefix: u8) -> Self {
        Self(IpNet::new_assert(IpAddr::V6(base), prefix))
    }

    /// Whether an address is in this network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether this address may be connected to because the site allowed this network. A special-use address
    /// (RFC 6890) needs a special-use network: `0.0.0.0/0` does not allow loopback addresses.
    pub fn admits(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut special = SPECIAL.iter().filter(|special| special.contains(address));
        self.contains(address)
            && !is_never_dialled(address)
            && special.all(|special| special.0.contains(&self.0))
    }
}

/// Whether an address is never connected to, whatever the configuration says: unspecified, multicast,
/// broadcast, or link-local, where clouds serve the credentials of machines (SRC-12).
pub fn is_never_dialled(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_unspecified()
        || address.is_multicast()
        || address == IpAddr::V4(Ipv4Addr::BROADCAST)
        || LINK_LOCAL.iter().any(|network| network.contains(address))
}

const LINK_LOCAL: [Network; 2] =
    [Network::v4(169, 254, 0, 0, 16), Network::v6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)];

/// Special-use networks (RFC 6890 and IANA's registries). Isolated networks use these addresses, so each must
/// be allowed explicitly.
const SPECIAL: [Network; 27] = [
    Network::v4(0, 0, 0, 0, 8),
    Network::v4(10, 0, 0, 0, 8),
    Network::v4(100, 64, 0, 0, 10),
    Network::v4(127, 0, 0, 0, 8),
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
    // Addresses that embed IPv4: NAT64, 6to4, Teredo, and deprecated forms.
    Network::v6(Ipv6Addr::UNSPECIFIED, 96),
    Network::v6(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
    Network::v6(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48),
    Network::v6(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Network::v6(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Network::v6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    Network::v6(Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64),
    Network::v6(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    Network::v6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7),
    Network::v6(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().admits(address.parse().unwrap())
    }

    /// CIMD-06: a resolved address must be in an allowed network.
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
            // The same address, IPv4-mapped.
            ("10.20.0.0/16", "::ffff:10.20.0.1"),
        ] {
            assert!(admits(network, address), "{network} {address}");
        }
    }

    /// CIMD-06: special-use addresses must be allowed explicitly; IPv4-mapped addresses are compared as IPv4.
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
            // SRC-12: link-local addresses are refused even if they are allowed.
            ("169.254.0.0/16", "169.254.169.254"),
            ("169.254.169.254/32", "169.254.169.254"),
            ("169.254.0.0/16", "::ffff:169.254.169.254"),
            ("fe80::/10", "fe80::1"),
        ] {
            assert!(!admits(network, address), "{network} {address}");
        }
    }

    #[test]
    fn invalid_networks_are_refused() {
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
