//! Where a webhook may not go: addresses that are private or lead to the machine itself, checked on
//! the address that is connected to, whatever the name said a moment ago.
//!
//! The check is a part of the client's resolver, so that no second look-up can give another answer;
//! an address that is written in the URL itself is never looked up, and is checked beforehand.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use ipnet::IpNet;
use reqwest::dns::Addrs;
use reqwest::dns::Name;
use reqwest::dns::Resolve;
use reqwest::dns::Resolving;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error as _;
use url::Host;
use url::Url;

/// Which private addresses an endpoint may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowPrivate {
    /// None.
    #[default]
    No,
    /// Every one.
    Yes,
    /// Those of these networks.
    Networks(Vec<IpNet>),
}

impl AllowPrivate {
    /// Whether it may be connected to.
    pub fn allows(&self, address: IpAddr) -> bool {
        let plain = address.to_canonical();
        match self {
            Self::Yes => true,
            Self::No => is_public(plain),
            Self::Networks(networks) => {
                is_public(plain) || networks.iter().any(|network| network.contains(&plain))
            }
        }
    }

    /// Whether the URL's own address may be connected to. A name is looked at when it is resolved.
    pub fn allows_literal(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Ipv4(address)) => self.allows(address.into()),
            Some(Host::Ipv6(address)) => self.allows(address.into()),
            Some(Host::Domain(_)) | None => true,
        }
    }
}

impl<'de> Deserialize<'de> for AllowPrivate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            All(bool),
            Networks(Vec<String>),
        }
        let written = Written::deserialize(from).map_err(|_| {
            D::Error::custom("must be true, false or a list of networks\nas in [10.1.0.0/16]")
        })?;
        match written {
            Written::All(true) => Ok(Self::Yes),
            Written::All(false) => Ok(Self::No),
            Written::Networks(networks) => networks
                .iter()
                .map(|text| text.parse())
                .collect::<Result<_, _>>()
                .map(Self::Networks)
                .map_err(|_| D::Error::custom("is not a network\nwrite it as 10.1.0.0/16")),
        }
    }
}

/// Whether an address is one of the open Internet. Source: the IANA special-purpose registries.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = match (a, b, c) {
        // "This network", private, loopback, link-local (with the metadata of clouds).
        (0 | 10 | 127, _, _) | (169, 254, _) | (192, 168, _) => true,
        (172, b, _) => (16..32).contains(&b),
        // Carriers' NAT.
        (100, b, _) => (64..128).contains(&b),
        // Protocol assignments, relays, documentation, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => {
            true
        }
        // Multicast, reserved, broadcast.
        (224.., _, _) => true,
        _ => false,
    };
    // The metadata of a cloud that uses an address of the open Internet for it.
    !special && address != Ipv4Addr::new(168, 63, 129, 16)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let low = u32::from(parts[6]) << 16 | u32::from(parts[7]);
    let inside = match parts {
        // NAT64: what is behind it counts. The local-use prefix is private by definition.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(Ipv4Addr::from_bits(low)),
        // 6to4.
        [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    };
    if let Some(inside) = inside {
        return is_public_v4(inside);
    }
    let special = match parts {
        // Teredo and other protocol assignments; documentation; discard.
        [0x2001, second, ..] => second < 0x200 || second == 0xdb8,
        [0x3fff, second, ..] => second < 0x1000,
        // Everything beyond the global unicast addresses: loopback, mapped and compatible ones,
        // unique-local, link-local, site-local, multicast.
        [first, ..] => !(0x2000..0x4000).contains(&first),
    };
    !special
}

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync + 'static {
    /// All of them, with any port.
    fn lookup(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>>;
}

/// The system's own resolver.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.collect())
        })
    }
}

/// A resolver that hands out only addresses that may be connected to.
pub(super) struct Guard {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) allow: AllowPrivate,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (found, allow) = (
            self.lookup.lookup(name.as_str().to_owned()),
            self.allow.clone(),
        );
        Box::pin(async move {
            let found = found.await.map_err(|_| Unreachable::Unknown)?;
            let (known, mut allowed) = (!found.is_empty(), found);
            allowed.retain(|address| allow.allows(address.ip()));
            if allowed.is_empty() {
                let why = if known {
                    Unreachable::Private
                } else {
                    Unreachable::Unknown
                };
                return Err(why.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Why a name leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreachable {
    /// It does not resolve.
    Unknown,
    /// To addresses that are refused alone.
    Private,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "its name does not resolve",
            Self::Private => "its name resolves to private addresses alone",
        })
    }
}

impl Error for Unreachable {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_inside_is_refused_in_every_disguise() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(!AllowPrivate::No.allows(address), "{address}");
            assert!(AllowPrivate::Yes.allows(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.32.0.1",
            "172.15.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "192.167.1.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::",
            "::ffff:1.1.1.1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(AllowPrivate::No.allows(address), "{address}");
        }
    }

    #[test]
    fn a_list_of_networks_opens_them_alone() {
        let allow: AllowPrivate = serde_json::from_str(r#"["10.1.0.0/16"]"#).unwrap();
        let allows = |text: &str| allow.allows(text.parse().unwrap());
        assert!(allows("10.1.2.3") && allows("::ffff:10.1.2.3") && allows("1.1.1.1"));
        assert!(!allows("10.2.0.1") && !allows("127.0.0.1"));
        assert!(serde_json::from_str::<AllowPrivate>(r#"["everywhere"]"#).is_err());
        assert!(serde_json::from_str::<AllowPrivate>("1").is_err());
    }

    #[test]
    fn an_address_in_the_url_is_seen_however_it_is_written() {
        let refused = |url: &str| !AllowPrivate::No.allows_literal(&url.parse().unwrap());
        for url in [
            "http://127.0.0.1/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://0177.0.0.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            assert!(refused(url), "{url}");
        }
        assert!(!refused("http://1.1.1.1/") && !refused("http://example.com/"));
    }
}
