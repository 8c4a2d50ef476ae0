//! The decorator `rules`: changes or drops notifications that meet a condition.
//!
//! Conditions are Jinja expressions ([`minijinja`]) over origin, topic, severity, scope, metadata
//! and the rest; they and the templates of `set` are checked when they are read. Rules apply in
//! order, each to what the one before it made.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use minijinja::Environment;
use minijinja::Expression;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use url::Url;

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
use crate::processor::jinja;
use crate::processor::jinja::Context;
use crate::processor::jinja::Regions;
use crate::processor::registry::Services;
use crate::submission::TEXT_CHARS_MAX;
use crate::submission::check_content;

/// The wire name: config key and metric label.
pub const NAME: &str = "rules";

/// The fields that `set` may have. Text is a template, and takes the field away where it comes out
/// empty; of `metadata` the entries that are named change, and an empty text takes one away.
const FIELDS: [&str; 8] = [
    "title",
    "description",
    "link",
    "severity",
    "topic",
    "scope",
    "icon",
    "metadata",
];

/// What stands in `tidings.decorators[]` beside `name`, `policy` and `timeout`.
///
/// ```yaml
/// - name: rules
///   rules:
///     - when: "topic == 'deploy' and metadata.env != 'prod'"
///       set: { severity: low, topic: deploy-test, metadata: { checked: true } }
///     - when: "urgency < 2 and origin is startingwith 'external:'"
///       drop: "nobody wants to know"
/// ```
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Options {
    rules: Vec<Rule>,
    #[serde(default)]
    filter: Filter,
    #[serde(default)]
    regions: Regions,
}

/// One rule as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Absent is always.
    when: Option<String>,
    #[serde(default)]
    set: Map<String, Value>,
    drop: Option<String>,
    /// No later rule is looked at.
    #[serde(default)]
    stop: bool,
}

/// A rule that is checked.
struct Checked {
    when: Option<Expression<'static, 'static>>,
    /// The names of the templates in `set`, by field.
    templates: Vec<(String, String)>,
    /// The rest of `set`, as it is.
    literal: Map<String, Value>,
    drop: Option<String>,
    stop: bool,
}

/// The decorator.
struct Rules {
    rules: Vec<Checked>,
    templates: Environment<'static>,
    stage: Stage,
    local: bool,
    regions: Regions,
    filter: Filter,
    app_base_url: Url,
}

/// Makes the decorator of an item of `tidings.decorators`.
///
/// # Errors
/// What is wrong with a rule, at its place.
pub fn build(section: &Section, services: &Services) -> Result<Arc<dyn Decorator>, ConfigError> {
    let options: Options = section.read()?;
    let places = section.get("rules").items();
    let mut templates = jinja::environment();
    let (mut rules, mut used) = (Vec::new(), HashSet::new());
    for (number, (rule, place)) in options.rules.into_iter().zip(&places).enumerate() {
        rules.push(check(number, rule, place, &mut templates, &mut used)?);
    }
    let stage = if jinja::is_personal(&used) {
        Stage::PerPerson
    } else {
        Stage::PerSubmission
    };
    let mut local = ["name", "locale", "timezone"].iter();
    Ok(Arc::new(Rules {
        rules,
        templates,
        stage,
        local: local.any(|one| used.contains(*one)),
        regions: options.regions,
        filter: options.filter,
        app_base_url: services.app_base_url.clone(),
    }))
}

/// Reads one rule; notes which variables it uses.
fn check(
    number: usize,
    rule: Rule,
    place: &Section,
    templates: &mut Environment<'static>,
    used: &mut HashSet<String>,
) -> Result<Checked, ConfigError> {
    if rule.set.is_empty() && rule.drop.is_none() && !rule.stop {
        let what = format!("`{}` does nothing", place.key());
        return Err(place.error(what, "give it `set`, `drop` or `stop: true`"));
    }
    let when = match &rule.when {
        Some(text) => Some(condition(text, &place.get("when"), templates, used)?),
        None => None,
    };
    let mut checked = Checked {
        when,
        templates: Vec::new(),
        literal: Map::new(),
        drop: rule.drop,
        stop: rule.stop,
    };
    for (field, value) in rule.set {
        let at = place.get("set").get(&field);
        if !FIELDS.contains(&field.as_str()) {
            let help = format!("a rule sets {}", FIELDS.join(", "));
            return Err(at.error(format!("a notification has no `{field}`"), help));
        }
        match value {
            Value::Object(object) if field == "metadata" => {
                checked.literal.insert(field, Value::Object(object));
            }
            Value::String(text) if field != "metadata" => {
                let name = format!("rules[{number}].set.{field}");
                let wrong = |error: &minijinja::Error| {
                    let what = format!("`{}`: {}", at.key(), jinja::error_text(error));
                    at.error(what, "text here is a Jinja template")
                };
                templates
                    .add_template_owned(name.clone(), text)
                    .map_err(|error| wrong(&error))?;
                let template = templates
                    .get_template(&name)
                    .map_err(|error| wrong(&error))?;
                let variables = template.undeclared_variables(false);
                known(&variables, &at, templates.globals().map(|(name, _)| name))?;
                used.extend(variables);
                checked.templates.push((field, name));
            }
            _ => {
                let kind = if field == "metadata" {
                    "an object"
                } else {
                    "text"
                };
                let what = format!("`{}` must be {kind}", at.key());
                return Err(at.error(what, "text that comes out empty takes a field away"));
            }
        }
    }
    Ok(checked)
}

/// Reads a condition.
fn condition(
    text: &str,
    at: &Section,
    templates: &Environment<'static>,
    used: &mut HashSet<String>,
) -> Result<Expression<'static, 'static>, ConfigError> {
    let wrong = |error: &minijinja::Error| {
        let what = format!("`{}`: {}", at.key(), jinja::error_text(error));
        let help = "write a Jinja expression, as in: topic == 'deploy' and urgency >= 3";
        at.error(what, help)
    };
    let expression = jinja::shared_environment()
        .compile_expression_owned(text.to_owned())
        .map_err(|error| wrong(&error))?;
    let variables = expression.undeclared_variables(false);
    known(&variables, at, templates.globals().map(|(name, _)| name))?;
    // A filter or test that does not exist is found only when it is used.
    if let Err(error) = jinja::try_on(|context| expression.eval(context)) {
        return Err(wrong(&error));
    }
    used.extend(variables);
    Ok(expression)
}

/// Holds variables to those there are.
fn known<'a>(
    variables: &HashSet<String>,
    at: &Section,
    functions: impl Iterator<Item = &'a str>,
) -> Result<(), ConfigError> {
    let Some(name) = jinja::unknown(variables, &functions.collect()) else {
        return Ok(());
    };
    let help = match jinja::nearest(&name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", jinja::VARIABLES.join(", ")),
    };
    Err(at.error(format!("`{}`: unknown variable `{name}`", at.key()), help))
}

impl Rules {
    fn applies(
        &self,
        number: usize,
        rule: &Checked,
        context: &minijinja::Value,
    ) -> Result<bool, Failure> {
        let Some(when) = &rule.when else {
            return Ok(true);
        };
        let result = when.eval(context.clone());
        result.map(|value| value.is_true()).map_err(|error| {
            // The error's own detail may quote the notification.
            let what = format!("rules[{number}].when: {}", error.kind());
            Failure::permanent(Reason::Config, what)
        })
    }

    /// What a rule makes of the content.
    fn set(
        &self,
        rule: &Checked,
        payload: &Payload,
        context: &minijinja::Value,
    ) -> Result<Payload, Failure> {
        let mut patch = rule.literal.clone();
        if let Some(Value::Object(news)) = patch.get_mut("metadata") {
            // Only the entries that are named change.
            let mut all = payload.metadata.clone().unwrap_or_default();
            for (key, value) in std::mem::take(news) {
                if value == "" {
                    all.remove(&key);
                } else {
                    all.insert(key, value);
                }
            }
            *news = all;
        }
        for (field, name) in &rule.templates {
            let rendered = self
                .templates
                .get_template(name)
                .and_then(|template| template.render(context.clone()))
                .map_err(|error| {
                    let what = format!("{name}: {}", error.kind());
                    Failure::permanent(Reason::Config, what)
                })?;
            let text = rendered.replace('\0', "").trim().to_owned();
            if field != "description" && TEXT_CHARS_MAX < text.chars().count() && field != "link" {
                let what = format!("{name} is longer than {TEXT_CHARS_MAX} characters");
                return Err(Failure::permanent(Reason::Invalid, what));
            }
            let empty = text.is_empty() && field != "title";
            let value = if empty {
                Value::Null
            } else {
                Value::String(text)
            };
            patch.insert(field.clone(), value);
        }
        let refused = |why: String| Failure::permanent(Reason::Invalid, why);
        let changed = payload.patched(&patch).map_err(|_| {
            refused("a rule sets what is no notification, such as an unknown severity".to_owned())
        })?;
        if self.stage == Stage::PerPerson {
            let checked = check_content(&changed, &self.app_base_url);
            checked.map_err(|invalid| refused(invalid.with_place()))?;
        }
        Ok(changed)
    }
}

#[async_trait]
impl Decorator for Rules {
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
        let mut payload = draft.payload.clone();
        for (number, rule) in self.rules.iter().enumerate() {
            let context = Context::of(&draft, &payload, &self.regions);
            let context = context.value();
            if !self.applies(number, rule, &context)? {
                continue;
            }
            if let Some(why) = &rule.drop {
                return Ok(Decorated::Drop(why.clone()));
            }
            payload = self.set(rule, &payload, &context)?;
            if rule.stop {
                break;
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
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::processor::registry;

    fn rules(yaml: &str) -> Result<Arc<dyn Decorator>, ConfigError> {
        registry::tests::one_decorator(&format!("{{ name: rules, rules: {yaml} }}"))
    }

    async fn run(rules: &str, fields: Value, user: Option<&str>) -> Result<Decorated, Failure> {
        let payload: Payload = serde_json::from_value(fields).unwrap();
        let rules = self::rules(rules).unwrap();
        let draft = Draft {
            submission: uuid::Uuid::nil(),
            origin: "external:ci",
            user,
            person: None,
            payload: &payload,
        };
        rules.decorate(draft).await
    }

    async fn changed(rules: &str, fields: Value) -> Payload {
        match run(rules, fields, None).await.unwrap() {
            Decorated::Change(payload) => payload,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn rules_apply_in_order_each_to_what_the_one_before_made() {
        let all = r#"[
            { when: "topic == 'deploy' and metadata.env != 'prod'",
              set: { severity: low, metadata: { checked: true, secret: "" } } },
            { when: "urgency == 1", set: { title: "[{{ metadata.env }}] {{ title }}", link: "" } },
            { when: "origin is startingwith 'external:'", stop: true },
            { set: { icon: never } } ]"#;
        let payload = changed(
            all,
            json!({"title": "Shop", "topic": "deploy", "link": "/x",
                "metadata": {"env": "dev", "secret": "s", "kept": 1}}),
        )
        .await;
        assert_eq!(payload.title, "[dev] Shop");
        assert_eq!(payload.severity().as_str(), "low");
        assert_eq!((payload.link, payload.icon), (None, None));
        assert_eq!(
            Value::Object(payload.metadata.unwrap()),
            json!({"env": "dev", "kept": 1, "checked": true})
        );
        let prod = json!({"title": "Shop", "topic": "deploy", "metadata": {"env": "prod"}});
        assert_eq!(run(all, prod, None).await, Ok(Decorated::Keep));
    }

    #[tokio::test]
    async fn a_rule_drops_and_says_why() {
        let all = r#"[ { when: "severity in ['low'] and not scope", drop: "too quiet" } ]"#;
        let low = json!({"title": "t", "severity": "low"});
        let dropped = Decorated::Drop("too quiet".to_owned());
        assert_eq!(run(all, low, None).await, Ok(dropped));
        let scoped = json!({"title": "t", "severity": "low", "scope": "s"});
        assert_eq!(run(all, scoped, None).await, Ok(Decorated::Keep));
    }

    #[tokio::test]
    async fn a_rule_about_the_person_runs_for_each() {
        let all =
            r#"[ { when: "user == 'user:default/ann'", set: { title: "Ann: {{ title }}" } } ]"#;
        assert_eq!(rules(all).unwrap().stage(), Stage::PerPerson);
        let fields = || json!({"title": "t"});
        let ann = run(all, fields(), Some("user:default/ann")).await.unwrap();
        assert!(matches!(ann, Decorated::Change(payload) if payload.title == "Ann: t"));
        let bo = run(all, fields(), Some("user:default/bo")).await;
        assert_eq!(bo, Ok(Decorated::Keep));
        let whole = rules(r#"[ { when: "topic == 'a'", drop: "x" } ]"#).unwrap();
        assert_eq!(whole.stage(), Stage::PerSubmission);
    }

    #[tokio::test]
    async fn what_the_rules_of_content_forbid_is_refused_without_quoting_it() {
        for (all, words) in [
            (
                r#"[ { set: { severity: "{{ metadata.word }}" } } ]"#,
                "unknown severity",
            ),
            (
                r#"[ { set: { topic: "{% for i in range(300) %}x{% endfor %}" } } ]"#,
                "longer than",
            ),
            (
                r#"[ { when: "metadata.word | int > 3", drop: x } ]"#,
                "rules[0].when",
            ),
        ] {
            let fields = json!({"title": "t", "metadata": {"word": "canary"}});
            let failure = run(all, fields, None).await.unwrap_err();
            assert!(failure.detail.contains(words), "{failure}");
            assert!(!failure.detail.contains("canary"), "{failure}");
        }
    }

    #[test]
    fn what_cannot_work_is_found_at_the_start() {
        for (all, words) in [
            (
                r#"[ { when: "topic ==", drop: x } ]"#,
                "rules[0].when`: syntax error",
            ),
            (
                r#"[ { when: "topik == 'a'", drop: x } ]"#,
                "did you mean `topic`?",
            ),
            (r#"[ { when: "weather", drop: x } ]"#, "known are title"),
            (r#"[ { when: "title | uper", drop: x } ]"#, "unknown filter"),
            (r#"[ { when: "true" } ]"#, "does nothing"),
            (r#"[ { set: { colour: red } } ]"#, "no `colour`"),
            (r#"[ { set: { title: 7 } } ]"#, "must be text"),
            (r#"[ { set: { metadata: text } } ]"#, "must be an object"),
            (
                r#"[ { set: { title: "{{ titel }}" } } ]"#,
                "did you mean `title`?",
            ),
            (r#"[ { wen: "true", drop: x } ]"#, "did you mean `when`?"),
        ] {
            let error = rules(all).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{all} is taken"));
            assert!(error.contains(words), "{words} in {error}");
            assert!(error.contains("tidings.yaml:"), "{error}");
        }
    }
}
