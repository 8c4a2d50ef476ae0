//! The decorator `template`: sets title, description, link and icon by origin and topic.
//!
//! Templates are Jinja ([`minijinja`]), written in the configuration or in files beside it, and
//! checked when they are read. They see the notification as earlier decorators left it. What they
//! make is plain text: nothing is escaped here, since every sender escapes for its own medium.
//! It never sees settings, addresses or the store.

mod compile;
mod options;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use minijinja::Environment;
use minijinja::value::Value;
use url::Url;

pub use self::options::Field;
pub use self::options::Key;
pub use self::options::Options;
pub use self::options::Rule;
pub use self::options::Source;
pub use self::options::Texts;
use crate::config::ConfigError;
use crate::config::Section;
use crate::failure::Failure;
use crate::failure::Reason;
use crate::notification::Payload;
use crate::processor::Decorated;
use crate::processor::Decorator;
use crate::processor::Draft;
use crate::processor::Filter;
use crate::processor::Stage;
use crate::processor::jinja::Context;
use crate::processor::jinja::Regions;
use crate::processor::registry::Services;
use crate::submission::TEXT_CHARS_MAX;
use crate::submission::resolve_link;

/// The wire name: config key and metric label.
pub const NAME: &str = "template";

/// A fault in a template or rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct TemplateError {
    /// Of which.
    pub key: Key,
    /// The template's file, if it has one of its own.
    pub file: Option<PathBuf>,
    /// The line within the template, from 1.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// Makes the decorator of an item of `tidings.decorators`.
///
/// # Errors
/// What is wrong with the options or a template, at its file and line.
pub fn build(section: &Section, services: &Services) -> Result<Arc<dyn Decorator>, ConfigError> {
    let options = section.read()?;
    let folder = section.resolve(Path::new(""));
    let template = Template::new(options, &folder, services.app_base_url.clone());
    Ok(Arc::new(
        template.map_err(|error| error.in_section(section))?,
    ))
}

impl TemplateError {
    /// The fault at the key that it is about.
    fn in_section(self, section: &Section) -> ConfigError {
        let rules = section.get("rules");
        let rule = rules
            .items()
            .into_iter()
            .nth(self.key.rule)
            .unwrap_or(rules);
        let rule = match &self.key.locale {
            Some(locale) => rule.get("locales").get(locale),
            None => rule,
        };
        let at = match self.key.field {
            Some(field) => rule.get(field.as_str()),
            None if self.key == Key::REGIONS => section.get("regions").get("timezone"),
            None => rule,
        };
        let message = match (&self.file, self.line) {
            (Some(file), Some(line)) => format!("{}:{line}: {}", file.display(), self.message),
            (Some(file), None) => format!("{}: {}", file.display(), self.message),
            (None, Some(line)) if 1 < line => format!("line {line} of it: {}", self.message),
            (None, _) => self.message,
        };
        at.error(format!("`{}`: {message}", at.key()), self.help)
    }
}

/// The decorator.
pub struct Template {
    rules: Vec<Rule>,
    /// Every template, by `rules[i].field`.
    templates: Environment<'static>,
    stage: Stage,
    /// Whether it is another for people of other places.
    local: bool,
    regions: Regions,
    filter: Filter,
    app_base_url: Url,
}

impl Template {
    /// Reads and checks every template; files are relative to `folder`.
    ///
    /// # Errors
    /// Names the rule, the file and the line of what cannot work.
    pub fn new(options: Options, folder: &Path, app_base_url: Url) -> Result<Self, TemplateError> {
        let compiled = compile::compile(&options.rules, folder)?;
        let stage = match (options.per_person, compiled.personal) {
            (Some(false), Some(key)) => {
                return Err(TemplateError {
                    key,
                    file: None,
                    line: None,
                    message:
                        "it is another for each person, who is not known with `perPerson: false`"
                            .to_owned(),
                    help: "set `perPerson: true`, or do without user, name, locale and timezone"
                        .to_owned(),
                });
            }
            (Some(true), _) | (None, Some(_)) => Stage::PerPerson,
            (_, None) => Stage::PerSubmission,
        };
        if !options.regions.knows_its_zone() {
            return Err(TemplateError {
                key: Key::REGIONS,
                file: None,
                line: None,
                message: format!("no time zone `{}` is known here", options.regions.timezone),
                help: "write one of the IANA database, as in Europe/Zurich; install tzdata"
                    .to_owned(),
            });
        }
        Ok(Self {
            local: compiled.local,
            regions: options.regions,
            rules: options.rules,
            templates: compiled.templates,
            stage,
            filter: options.filter,
            app_base_url,
        })
    }

    /// The most specific rule that matches, and its number. The first of equals.
    fn rule(&self, draft: &Draft<'_>) -> Option<(usize, &Rule)> {
        let topic = draft.payload.topic.as_deref();
        self.rules
            .iter()
            .enumerate()
            .filter_map(|(at, rule)| Some((rule.matches(draft.origin, topic)?, at, rule)))
            .max_by_key(|(exactness, at, _)| (*exactness, std::cmp::Reverse(*at)))
            .map(|(_, at, rule)| (at, rule))
    }

    fn render(&self, name: &str, field: Field, context: &Value) -> Result<Option<String>, Failure> {
        let text = self
            .templates
            .get_template(name)
            .and_then(|template| template.render(context.clone()))
            .map_err(|error| {
                // The error's own detail may quote the notification.
                let line = error.line().unwrap_or(1);
                let what = format!("{name}, line {line}: {}", error.kind());
                Failure::permanent(Reason::Config, what)
            })?;
        self.checked(field, &text)
    }

    /// What a template made, as a value of its field; `None` removes the field.
    fn checked(&self, field: Field, text: &str) -> Result<Option<String>, Failure> {
        let text = text.replace('\0', "");
        let text = match field {
            Field::Description => text.trim().to_owned(),
            _ => one_line(&text),
        };
        let refuse = |why: String| {
            let what = format!("the template's {} {why}", field.as_str());
            Err(Failure::permanent(Reason::Invalid, what))
        };
        let chars = text.chars().count();
        match field {
            Field::Title if text.is_empty() => refuse("is empty".to_owned()),
            Field::Title | Field::Icon if chars > TEXT_CHARS_MAX => refuse(format!(
                "is {chars} characters long; at most {TEXT_CHARS_MAX} are stored"
            )),
            Field::Link if !text.is_empty() && resolve_link(&text, &self.app_base_url).is_err() => {
                refuse("leads to no page; only http, https and paths of the app do".to_owned())
            }
            _ => Ok(Some(text).filter(|text| !text.is_empty())),
        }
    }
}

/// The lines of a text, trimmed, as one.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[async_trait]
impl Decorator for Template {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn wants_people(&self) -> bool {
        self.local
    }

    async fn decorate(&self, draft: Draft<'_>) -> Result<Decorated, Failure> {
        let Some((at, rule)) = self.rule(&draft) else {
            return Ok(Decorated::Keep);
        };
        let context = Context::of(&draft, draft.payload, &self.regions);
        let context = context.value();
        let language = rule.language(self.regions.locale(draft.person));
        let mut payload: Payload = draft.payload.clone();
        for field in Field::ALL {
            let Some((key, _)) = rule.template(at, field, language) else {
                continue;
            };
            let value = self.render(&key.to_string(), field, &context)?;
            match field {
                Field::Title => payload.title = value.unwrap_or_default(),
                Field::Description => payload.description = value,
                Field::Link => payload.link = value,
                Field::Icon => payload.icon = value,
            }
        }
        if &payload == draft.payload {
            return Ok(Decorated::Keep);
        }
        Ok(Decorated::Change(payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use uuid::Uuid;

    fn template(options: serde_json::Value) -> Result<Template, TemplateError> {
        let options = serde_json::from_value(options).unwrap();
        let base = Url::parse("http://localhost:3000").unwrap();
        Template::new(options, Path::new("."), base)
    }

    fn payload(fields: serde_json::Value) -> Payload {
        serde_json::from_value(fields).unwrap()
    }

    async fn run(
        template: &Template,
        origin: &str,
        user: Option<&str>,
        payload: &Payload,
    ) -> Result<Decorated, Failure> {
        template
            .decorate(Draft {
                submission: Uuid::from_u128(1),
                origin,
                user,
                person: None,
                payload,
            })
            .await
    }

    #[tokio::test]
    async fn the_most_specific_rule_is_used_alone() {
        let template = template(json!({"rules": [
            {"title": "any: {{ title }}"},
            {"topic": "deploy", "title": "topic: {{ title }}"},
            {"origin": "ci", "title": "origin: {{ title }}", "icon": "robot"},
            {"origin": "ci", "topic": "deploy", "title": "both: {{ title }}"},
        ]}))
        .unwrap();
        assert_eq!(template.stage(), Stage::PerSubmission);
        for (origin, topic, title, icon) in [
            ("ci", Some("deploy"), "both: t", None),
            ("ci", Some("build"), "origin: t", Some("robot")),
            ("ci", None, "origin: t", Some("robot")),
            ("cd", Some("deploy"), "topic: t", None),
            ("cd", None, "any: t", None),
        ] {
            let payload = payload(json!({"title": "t", "topic": topic}));
            let Decorated::Change(changed) = run(&template, origin, None, &payload).await.unwrap()
            else {
                panic!("{origin} {topic:?} is kept")
            };
            assert_eq!(
                (changed.title.as_str(), changed.icon.as_deref()),
                (title, icon)
            );
        }
    }

    #[tokio::test]
    async fn templates_see_the_notification_and_absent_fields_print_nothing() {
        let template = template(json!({"rules": [{
            "title": "{{ severity | upper }}{{ scope }} {{ title }}\n  by {{ origin }}",
            "description": "{{ metadata.service.owner }}{% if description %}old{% endif %}",
            "link": "/catalog/{{ metadata.name }}",
            "icon": "{{ icon or 'bell' }}",
        }]}))
        .unwrap();
        let payload = payload(json!({
            "title": "<b>&\"", "description": "old", "metadata": {"name": "shop"}, "kept": 1
        }));
        let Decorated::Change(changed) = run(&template, "ci", None, &payload).await.unwrap() else {
            panic!("kept")
        };
        assert_eq!(changed.title, "NORMAL <b>&\" by ci");
        assert_eq!(changed.description.as_deref(), Some("old"));
        assert_eq!(changed.link.as_deref(), Some("/catalog/shop"));
        assert_eq!(changed.icon.as_deref(), Some("bell"));
        assert_eq!(changed.extra["kept"], 1);
    }

    #[tokio::test]
    async fn a_template_that_uses_the_user_runs_for_each_person() {
        let rules = json!([{"title": "{{ user or 'everybody' }}: {{ title }}"}]);
        let decorator = template(json!({"rules": rules})).unwrap();
        assert_eq!(decorator.stage(), Stage::PerPerson);
        let payload = payload(json!({"title": "t"}));
        for (user, title) in [(Some("user:a"), "user:a: t"), (None, "everybody: t")] {
            let Decorated::Change(changed) = run(&decorator, "ci", user, &payload).await.unwrap()
            else {
                panic!("kept")
            };
            assert_eq!(changed.title, title);
        }
        let error = template(json!({"rules": rules, "perPerson": false}))
            .err()
            .unwrap();
        assert_eq!(error.key.to_string(), "rules[0].title");
        let asked = template(json!({"rules": [{"icon": "x"}], "perPerson": true})).unwrap();
        assert_eq!(asked.stage(), Stage::PerPerson);
    }

    #[tokio::test]
    async fn each_person_reads_it_in_their_language_and_by_their_clock() {
        let template = template(json!({"rules": [{
            "title": "{{ title }} at {{ metadata.at | localtime('%H:%M') }}",
            "icon": "bell",
            "locales": {
                "de": {"title": "{{ title }} um {{ metadata.at | localtime('%H:%M') }}"},
                "de-CH": {"title": "Grüezi {{ name }}"},
            }
        }], "regions": {"timezone": "Asia/Tokyo"}}))
        .unwrap();
        assert_eq!(template.stage(), Stage::PerPerson);
        assert!(template.wants_people());
        let payload = payload(json!({"title": "t", "metadata": {"at": "2026-01-01T12:00:00Z"}}));
        for (annotations, title) in [
            (json!({}), "t at 21:00"),
            (json!({"tidings/locale": "fr"}), "t at 21:00"),
            (
                json!({"tidings/locale": "de-AT", "tidings/timezone": "Europe/Vienna"}),
                "t um 13:00",
            ),
            (json!({"tidings/locale": "de_ch"}), "Grüezi Ann"),
        ] {
            let person = crate::catalog::CatalogUser {
                display_name: Some("Ann".to_owned()),
                annotations: serde_json::from_value(annotations).unwrap(),
                ..Default::default()
            };
            let draft = Draft {
                submission: Uuid::from_u128(1),
                origin: "ci",
                user: Some("user:default/ann"),
                person: Some(&person),
                payload: &payload,
            };
            let Decorated::Change(changed) = template.decorate(draft).await.unwrap() else {
                panic!("kept")
            };
            assert_eq!(changed.title, title);
            assert_eq!(changed.icon.as_deref(), Some("bell"));
        }
    }

    #[test]
    fn a_zone_that_nobody_knows_is_found_at_the_start() {
        let options = json!({"rules": [{"icon": "x"}], "regions": {"timezone": "Moon/Base"}});
        let error = template(options).err().unwrap();
        assert!(error.message.contains("Moon/Base"), "{error}");
    }

    #[tokio::test]
    async fn what_comes_out_empty_removes_the_field_and_equal_content_is_kept() {
        let template = template(json!({"rules": [{"topic": "a", "link": ""},
            {"topic": "b", "title": "{{ title }}"}]}))
        .unwrap();
        let with_link = payload(json!({"title": "t", "topic": "a", "link": "/x"}));
        let Decorated::Change(changed) = run(&template, "ci", None, &with_link).await.unwrap()
        else {
            panic!("kept")
        };
        assert_eq!(changed.link, None);
        for topic in ["b", "c"] {
            let same = payload(json!({"title": "t", "topic": topic}));
            assert_eq!(run(&template, "ci", None, &same).await, Ok(Decorated::Keep));
        }
    }

    #[tokio::test]
    async fn what_the_rules_of_content_forbid_is_refused_without_quoting_it() {
        let template = template(json!({"rules": [
            {"topic": "title", "title": "{{ metadata.secret }}"},
            {"topic": "long", "icon": "{% for i in range(300) %}x{% endfor %}"},
            {"topic": "link", "link": "javascript:{{ metadata.other }}"},
            {"topic": "broken", "icon": "{{ metadata.number | round | items }}"},
        ]}))
        .unwrap();
        for (topic, words) in [
            ("title", "title is empty"),
            ("long", "icon is 300 characters long"),
            ("link", "link leads to no page"),
            ("broken", "rules[3].icon, line 1: invalid operation"),
        ] {
            let payload = payload(json!({
                "title": "t", "topic": topic, "metadata": {"other": "canary", "number": 1.5}
            }));
            let failure = run(&template, "ci", None, &payload).await.unwrap_err();
            assert!(failure.detail.contains(words), "{failure}");
            assert!(!failure.detail.contains("canary"), "{failure}");
        }
    }
}
