//! Which addresses may be written to: the peer's rule of form, and the configured lists.

use super::config::EmailConfig;
use crate::failure::Reason;

/// Characters that an address may not hold. They would begin a name, a comment or a second
/// address in a header. Source: contract 5.
const FORBIDDEN: [char; 8] = ['"', '\'', ' ', ',', ';', '<', '>', ':'];

/// Whether the text is one plain address: no space, none of `" ' , ; < > :`, and exactly one `@`
/// with something on both sides.
pub(super) fn is_plain(address: &str) -> bool {
    let unfit = |c: char| c.is_whitespace() || c.is_control() || FORBIDDEN.contains(&c);
    let Some((user, domain)) = address.split_once('@') else {
        return false;
    };
    !user.is_empty() && !domain.is_empty() && !domain.contains('@') && !address.contains(unfit)
}

/// The addresses that the configuration allows, compared without case.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowed {
    domains: Option<Vec<String>>,
    allowed: Option<Vec<String>>,
    denied: Vec<String>,
}

impl Allowed {
    pub(super) fn new(config: &EmailConfig) -> Self {
        let lower = |list: &Option<Vec<String>>| -> Option<Vec<String>> {
            list.as_ref()
                .map(|list| list.iter().map(|one| one.to_lowercase()).collect())
        };
        Self {
            domains: lower(&config.allowed_email_domains),
            allowed: lower(&config.allowlist_email_addresses),
            denied: lower(&config.denylist_email_addresses).unwrap_or_default(),
        }
    }

    /// Why nothing may be sent to this address, or `None` if it may. Names the list, never the
    /// address. The allow list wins over the domains, and is exclusive where it stands alone; the
    /// deny list beats all.
    pub(super) fn objection(&self, address: &str) -> Option<(Reason, &'static str)> {
        if !is_plain(address) {
            return Some((
                Reason::NoAddress,
                "the address is not one plain name@domain (no spaces, none of \" ' , ; < > :)",
            ));
        }
        let address = address.to_lowercase();
        if self.denied.contains(&address) {
            return Some((
                Reason::Muted,
                "the address stands in denylistEmailAddresses",
            ));
        }
        let domain = address.rsplit('@').next().unwrap_or_default();
        let listed = |list: &Option<Vec<String>>, what: &str| {
            list.as_ref()
                .is_some_and(|list| list.iter().any(|one| one == what))
        };
        if listed(&self.allowed, &address) || listed(&self.domains, domain) {
            return None;
        }
        match (&self.domains, &self.allowed) {
            (None, None) => None,
            (Some(_), _) => Some((
                Reason::Muted,
                "the address's domain does not stand in allowedEmailDomains",
            )),
            (None, Some(_)) => Some((
                Reason::Muted,
                "the address does not stand in allowlistEmailAddresses",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(json: &str) -> Allowed {
        Allowed::new(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn only_one_plain_address_is_written_to() {
        for good in ["a@b", "jane.doe+x@example.com", "jörg@exämple.de"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b",
            "a@",
            "a@b@c",
            " a@b",
            "a@b ",
            "a b@c",
            "a@b\n",
            "a@b\u{0}",
            "a@b,c@d",
            "a@b;c",
            "<a@b>",
            "A: a@b",
            "\"a\"@b",
            "o'brien@b",
        ] {
            assert!(!is_plain(bad), "{bad:?}");
        }
    }

    #[test]
    fn without_lists_everybody_may_be_written_to() {
        assert_eq!(allowed("{}").objection("a@b.example"), None);
    }

    #[test]
    fn domains_are_exact_and_have_no_case() {
        let rules = allowed(r#"{"allowedEmailDomains":["Example.com"]}"#);
        assert_eq!(rules.objection("a@EXAMPLE.com"), None);
        assert!(rules.objection("a@sub.example.com").is_some());
    }

    #[test]
    fn the_allow_list_wins_over_domains_is_exclusive_alone_and_the_deny_list_beats_all() {
        let both = allowed(
            r#"{"allowedEmailDomains":["b.example"],"allowlistEmailAddresses":["x@other.example"],
                "denylistEmailAddresses":["Evil@b.example"]}"#,
        );
        assert_eq!(both.objection("x@other.example"), None);
        assert_eq!(both.objection("a@b.example"), None);
        assert!(both.objection("y@other.example").is_some());
        assert!(both.objection("evil@B.example").is_some());
        let alone = allowed(r#"{"allowlistEmailAddresses":["x@b.example"]}"#);
        assert_eq!(alone.objection("X@b.example"), None);
        assert!(alone.objection("a@b.example").is_some());
    }
}
