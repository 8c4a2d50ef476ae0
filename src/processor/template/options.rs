//! What a person writes to configure the decorator: rules and their templates.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::MapAccess;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;

use crate::processor::Filter;
use crate::processor::jinja::Regions;

/// What stands in `tidings.decorators[]` beside `name`, `policy` and `timeout`.
///
/// ```yaml
/// - name: template
///   filter: { minSeverity: normal }
///   rules:
///     - origin: external:ci
///       topic: deploy
///       title: "Deployed: {{ title }}"
///       description: { file: templates/deploy.txt }
///     - icon: "{{ icon or 'bell' }}"
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Options {
    /// The most specific rule that matches is used, alone: origin and topic before origin before
    /// topic before neither.
    pub rules: Vec<Rule>,
    /// Once for each person, with `user` known; absent, that is so if a template is another for
    /// each person: it uses `user`, `name`, `locale` or `timezone`, or a rule has `locales`.
    #[serde(default)]
    pub per_person: Option<bool>,
    /// Which notifications are decorated at all.
    #[serde(default)]
    pub filter: Filter,
    /// Where people are.
    #[serde(default)]
    pub regions: Regions,
}

/// What to set on notifications of an origin and topic.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// This origin, exactly; absent is any.
    #[serde(default)]
    pub origin: Option<String>,
    /// This topic, exactly; absent is any, and none.
    #[serde(default)]
    pub topic: Option<String>,
    /// One line; must not come out empty.
    #[serde(default)]
    pub title: Option<Source>,
    /// Text; none if it comes out empty.
    #[serde(default)]
    pub description: Option<Source>,
    /// http(s), or a path of the app; none if it comes out empty.
    #[serde(default)]
    pub link: Option<Source>,
    /// Name of an icon; none if it comes out empty.
    #[serde(default)]
    pub icon: Option<Source>,
    /// For people of a language, in place of the above: `de-CH` before `de` before those.
    #[serde(default)]
    pub locales: BTreeMap<String, Texts>,
}

/// The templates of one language.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Texts {
    /// As in the rule.
    #[serde(default)]
    pub title: Option<Source>,
    /// As in the rule.
    #[serde(default)]
    pub description: Option<Source>,
    /// As in the rule.
    #[serde(default)]
    pub link: Option<Source>,
    /// As in the rule.
    #[serde(default)]
    pub icon: Option<Source>,
}

impl Texts {
    fn of(&self, field: Field) -> Option<&Source> {
        match field {
            Field::Title => self.title.as_ref(),
            Field::Description => self.description.as_ref(),
            Field::Link => self.link.as_ref(),
            Field::Icon => self.icon.as_ref(),
        }
    }
}

impl Rule {
    fn of(&self, field: Field) -> Option<&Source> {
        match field {
            Field::Title => self.title.as_ref(),
            Field::Description => self.description.as_ref(),
            Field::Link => self.link.as_ref(),
            Field::Icon => self.icon.as_ref(),
        }
    }

    /// Every template of the rule `number`, where it stands.
    pub(super) fn templates(&self, number: usize) -> impl Iterator<Item = (Key, &Source)> {
        let languages = std::iter::once(None).chain(self.locales.keys().map(Some));
        languages.flat_map(move |language| {
            Field::ALL.into_iter().filter_map(move |field| {
                let source = match language {
                    Some(language) => self.locales.get(language)?.of(field)?,
                    None => self.of(field)?,
                };
                let key = Key {
                    rule: number,
                    locale: language.cloned(),
                    field: Some(field),
                };
                Some((key, source))
            })
        })
    }

    /// The language of ours that a person's is nearest to.
    pub(super) fn language(&self, locale: &str) -> Option<&str> {
        let same = |wanted: &str| {
            let mut keys = self.locales.keys();
            keys.find(|one| one.eq_ignore_ascii_case(wanted))
        };
        let locale = locale.replace('_', "-");
        let primary = locale.split('-').next().unwrap_or_default();
        same(&locale).or_else(|| same(primary)).map(String::as_str)
    }

    /// The template of a field in a language, else the rule's own.
    pub(super) fn template(
        &self,
        number: usize,
        field: Field,
        language: Option<&str>,
    ) -> Option<(Key, &Source)> {
        let key = |locale: Option<&str>| Key {
            rule: number,
            locale: locale.map(str::to_owned),
            field: Some(field),
        };
        let local = language.and_then(|one| Some((one, self.locales.get(one)?.of(field)?)));
        match local {
            Some((one, source)) => Some((key(Some(one)), source)),
            None => Some((key(None), self.of(field)?)),
        }
    }

    /// How exactly it matches; `None` if it does not.
    pub(super) fn matches(&self, origin: &str, topic: Option<&str>) -> Option<u8> {
        let matches_origin = self.origin.as_deref().is_none_or(|one| one == origin);
        let matches_topic = self.topic.is_none() || self.topic.as_deref() == topic;
        (matches_origin && matches_topic)
            .then(|| 2 * u8::from(self.origin.is_some()) + u8::from(self.topic.is_some()))
    }
}

/// Where a template stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In the configuration: `title: "{{ title }}"`.
    Inline(String),
    /// In a file of its own, relative to the configuration file: `title: { file: title.txt }`.
    File(PathBuf),
}

impl<'de> Deserialize<'de> for Source {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SourceVisitor)
    }
}

struct SourceVisitor;

impl<'de> Visitor<'de> for SourceVisitor {
    type Value = Source;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a template in quotes, or { file: … }")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Source, E> {
        Ok(Source::Inline(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Source, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct InFile {
            file: PathBuf,
        }
        let InFile { file } = InFile::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Source::File(file))
    }
}

/// A rule, or a template of it; written as in `rules[0].title`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Which rule, from 0.
    pub rule: usize,
    /// Of which language.
    pub locale: Option<String>,
    /// Which of its templates.
    pub field: Option<Field>,
}

impl Key {
    /// The options about where people are.
    pub(super) const REGIONS: Self = Self {
        rule: usize::MAX,
        locale: None,
        field: None,
    };
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules[{}]", self.rule)?;
        if let Some(locale) = &self.locale {
            write!(f, ".locales.{locale}")?;
        }
        match self.field {
            Some(field) => write!(f, ".{}", field.as_str()),
            None => Ok(()),
        }
    }
}

/// A field of the payload that a template can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// The title.
    Title,
    /// The description.
    Description,
    /// The link.
    Link,
    /// The icon.
    Icon,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Title, Self::Description, Self::Link, Self::Icon];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Description => "description",
            Self::Link => "link",
            Self::Icon => "icon",
        }
    }
}
