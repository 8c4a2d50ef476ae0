//! Reading templates when Tidings starts: everything that can be known to be wrong then, is.

use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;

use minijinja::Environment;
use minijinja::ErrorKind;

use super::Key;
use super::Rule;
use super::Source;
use super::TemplateError;
use crate::processor::jinja;

/// Templates that are checked.
pub(super) struct Compiled {
    pub(super) templates: Environment<'static>,
    /// The first template that is another for each person.
    pub(super) personal: Option<Key>,
    /// Whether what the catalog knows of people matters.
    pub(super) local: bool,
}

/// Reads and checks the templates of all rules.
pub(super) fn compile(rules: &[Rule], folder: &Path) -> Result<Compiled, TemplateError> {
    check_rules(rules)?;
    let mut templates = jinja::environment();
    let (mut personal, mut local) = (None, false);
    for (number, rule) in rules.iter().enumerate() {
        for (key, source) in rule.templates(number) {
            local = local || key.locale.is_some();
            let in_locale = key.locale.is_some();
            let template = Read::new(key, source, folder)?;
            let variables = template.add_to(&mut templates)?;
            local = local
                || ["name", "locale", "timezone"]
                    .iter()
                    .any(|one| variables.contains(*one));
            if (in_locale || jinja::is_personal(&variables)) && personal.is_none() {
                personal = Some(template.key);
            }
        }
    }
    Ok(Compiled {
        templates,
        personal,
        local,
    })
}

/// Rules that can never be used are mistakes.
fn check_rules(rules: &[Rule]) -> Result<(), TemplateError> {
    let fault = |rule: usize, message: &str, help: String| TemplateError {
        key: Key {
            rule,
            locale: None,
            field: None,
        },
        file: None,
        line: None,
        message: message.to_owned(),
        help,
    };
    for (at, rule) in rules.iter().enumerate() {
        if rule.templates(at).next().is_none() {
            return Err(fault(
                at,
                "it sets nothing",
                "set title, description, link or icon".to_owned(),
            ));
        }
        let same = |other: &Rule| other.origin == rule.origin && other.topic == rule.topic;
        if let Some(first) = rules[..at].iter().position(same) {
            return Err(fault(
                at,
                "it is never used",
                format!("rules[{first}] is for the same origin and topic; make one of the two"),
            ));
        }
    }
    Ok(())
}

/// A template that was read, not yet checked.
struct Read {
    key: Key,
    file: Option<PathBuf>,
    text: String,
}

impl Read {
    fn new(key: Key, source: &Source, folder: &Path) -> Result<Self, TemplateError> {
        match source {
            Source::Inline(text) => Ok(Self {
                key,
                file: None,
                text: text.clone(),
            }),
            Source::File(file) => {
                let file = folder.join(file);
                match std::fs::read_to_string(&file) {
                    Ok(text) => Ok(Self {
                        key,
                        file: Some(file),
                        text,
                    }),
                    Err(error) => Err(TemplateError {
                        key,
                        file: Some(file),
                        line: None,
                        message: format!("the template cannot be read: {error}"),
                        help: "paths are relative to the configuration file".to_owned(),
                    }),
                }
            }
        }
    }

    fn fault(&self, line: Option<usize>, message: String, help: String) -> TemplateError {
        TemplateError {
            key: self.key.clone(),
            file: self.file.clone(),
            line,
            message,
            help,
        }
    }

    /// Adds it, and returns the variables that it uses.
    fn add_to(
        &self,
        templates: &mut Environment<'static>,
    ) -> Result<HashSet<String>, TemplateError> {
        let broken = |error: &minijinja::Error| {
            let help = "templates are Jinja; write a literal {{ as {{ '{{' }}".to_owned();
            self.fault(error.line(), jinja::error_text(error), help)
        };
        let name = self.key.to_string();
        templates
            .add_template_owned(name.clone(), self.text.clone())
            .map_err(|error| broken(&error))?;
        let template = templates
            .get_template(&name)
            .map_err(|error| broken(&error))?;
        let variables = template.undeclared_variables(false);
        let functions: HashSet<&str> = templates.globals().map(|(name, _)| name).collect();
        if let Some(name) = jinja::unknown(&variables, &functions) {
            let message = format!("unknown variable `{name}`");
            let help = jinja::nearest(&name);
            let help = help.map_or_else(String::new, |one| format!("did you mean `{one}`?"));
            return Err(self.fault(line_of(&self.text, &name), message, help));
        }
        // A filter or test that does not exist is found only when it is used.
        let tried = jinja::try_on(|context| template.render(context));
        match tried.as_ref().map_err(|error| (error.kind(), error)) {
            Err((
                ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction,
                error,
            )) => Err(broken(error)),
            _ => Ok(variables),
        }
    }
}

/// The first line where `word` stands inside `{{ }}` or `{% %}`.
fn line_of(text: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut inside = false;
    for (at, line) in text.lines().enumerate() {
        let mut rest = line;
        let mut before = ' ';
        while let Some(c) = rest.chars().next() {
            if rest.starts_with("{{") || rest.starts_with("{%") {
                inside = true;
            } else if rest.starts_with("}}") || rest.starts_with("%}") {
                inside = false;
            } else if inside
                && !is_part(before)
                && rest
                    .strip_prefix(word)
                    .is_some_and(|after| !after.starts_with(is_part))
            {
                return Some(at + 1);
            }
            before = c;
            rest = &rest[c.len_utf8()..];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn compile_one(text: &str) -> Result<Compiled, TemplateError> {
        let rules: Vec<Rule> = serde_json::from_value(json!([{"title": text}])).unwrap();
        compile(&rules, Path::new("."))
    }

    #[test]
    fn what_cannot_work_is_found_at_the_start_with_its_line() {
        for (text, line, words) in [
            ("a\n{{ title", 2, "syntax error"),
            ("a\n{% if title %}", 2, "syntax error"),
            (
                "titel is prose\n{{ title }}\n{{ titel }}",
                3,
                "unknown variable `titel`",
            ),
            ("{{ weather }}", 1, "unknown variable `weather`"),
            ("\n{{ title | uper }}", 2, "unknown filter"),
            ("{{ title is shiny }}", 1, "unknown test"),
        ] {
            let error = compile_one(text).err().unwrap();
            assert_eq!(error.line, Some(line), "{text}: {error}");
            assert_eq!(error.key.to_string(), "rules[0].title");
            assert!(error.message.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn variables_of_its_own_and_builtin_functions_are_no_fault() {
        let text = "{% set x = range(2) %}{% for i in x %}{{ i }}{{ title }}{% endfor %}";
        assert!(compile_one(text).is_ok());
    }

    #[test]
    fn files_are_relative_to_the_folder_and_named_in_faults() {
        let folder = tempfile::tempdir().unwrap();
        let rules: Vec<Rule> =
            serde_json::from_value(json!([{"description": {"file": "deploy.txt"}}])).unwrap();
        let missing = compile(&rules, folder.path()).err().unwrap();
        assert_eq!(missing.file, Some(folder.path().join("deploy.txt")));
        std::fs::write(folder.path().join("deploy.txt"), "ok\n{{ nope }}\n").unwrap();
        let broken = compile(&rules, folder.path()).err().unwrap();
        assert_eq!(broken.file, Some(folder.path().join("deploy.txt")));
        assert_eq!(broken.line, Some(2));
        std::fs::write(folder.path().join("deploy.txt"), "by {{ user }}\n").unwrap();
        let compiled = compile(&rules, folder.path()).unwrap();
        let personal = compiled.personal.unwrap();
        assert_eq!(personal.to_string(), "rules[0].description");
    }

    #[test]
    fn rules_that_can_never_be_used_are_faults() {
        for (rules, words) in [
            (json!([{"origin": "ci"}]), "sets nothing"),
            (
                json!([{"origin": "ci", "icon": "a"}, {"origin": "ci", "icon": "b"}]),
                "never used",
            ),
        ] {
            let rules: Vec<Rule> = serde_json::from_value(rules).unwrap();
            let error = compile(&rules, Path::new(".")).err().unwrap();
            assert!(error.message.contains(words), "{error}");
        }
    }
}
