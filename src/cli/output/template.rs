//! Templates of `-o template=TEXT`: text with fields of the JSON objects.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
};

use minijinja::{Environment, UndefinedBehavior, value::Serde};
use serde_json::Value;

use crate::cli::{exit::Failure, output::json::SCHEMA};

/// A template that was parsed.
#[derive(Debug)]
pub(crate) struct Template {
    // Has the template under NAME.
    environment: Environment<'static>,
    // Fields of the objects that the template names.
    fields: BTreeSet<String>,
}

impl Template {
    /// Parses a template, in which `\n` and `\t` are a newline and a tab.
    ///
    /// # Errors
    /// The syntax is wrong, or a field is named that no command prints.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.replace("\\n", "\n").replace("\\t", "\t");
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        let wrong = |error: minijinja::Error| {
            let detail = error.detail().unwrap_or("it is not well-formed");
            format!("the template is wrong: {detail}")
        };
        environment.add_template_owned(NAME, text).map_err(wrong)?;
        let named = environment
            .get_template(NAME)
            .map_err(wrong)?
            .undeclared_variables(false);
        let is_global = |name: &String| environment.globals().any(|(global, _)| global == name);
        let fields: BTreeSet<String> = named.into_iter().filter(|name| !is_global(name)).collect();
        let known = fields_of_schema();
        match fields.iter().find(|field| !known.contains(*field)) {
            Some(field) => Err(unknown(field, &known)),
            None => Ok(Self {
                environment,
                fields,
            }),
        }
    }

    /// Returns the text for an object; `None` if the object has none of the fields, or the text is empty.
    ///
    /// # Errors
    /// A filter or a test of the template does not fit the value.
    pub(crate) fn fill(&self, object: &str) -> Result<Option<String>, Failure> {
        let failed =
            |what: Arguments<'_>| Failure::failed("template", format!("the template: {what}"));
        let object: BTreeMap<String, Value> =
            serde_json::from_str(object).map_err(|error| failed(format_args!("{error}")))?;
        let is_named = |field: &String| object.contains_key(field);
        if !self.fields.is_empty() && !self.fields.iter().any(is_named) {
            return Ok(None);
        }
        let values = minijinja::Value::from(Serde(&object));
        let template = self.environment.get_template(NAME);
        let text = template.and_then(|template| template.render(values));
        let text = text.map_err(|error| failed(format_args!("{error}")))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

// Returns the names of all fields that some object has.
fn fields_of_schema() -> BTreeSet<String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("a test reads the schema");
    let objects = schema["$defs"].as_object().into_iter().flatten();
    let fields = objects.flat_map(|(_, object)| object["properties"].as_object());
    fields.flatten().map(|(field, _)| field.clone()).collect()
}

fn unknown(field: &str, known: &BTreeSet<String>) -> String {
    let near = |name: &'_ String| (strsim::jaro_winkler(field, name), name.clone());
    let nearest = known.iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match nearest {
        Some((likeness, name)) if likeness >= LIKENESS_MIN => format!("did you mean {name}?"),
        _none => "`lattice help output` lists the fields".to_owned(),
    };
    format!("no command prints a field {field}: {hint}")
}

const NAME: &str = "output";
/// Jaro-Winkler likeness, 0 to 1, from which a field is worth a hint.
const LIKENESS_MIN: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str, object: &str) -> Option<String> {
        Template::parse(template).unwrap().fill(object).unwrap()
    }

    #[test]
    fn fields_are_filled_in() {
        let object =
            r#"{"type":"put","key":"/a","value":"<1>","seq":7,"heads":["x","y"],"conflict":true}"#;
        for (template, text) in [
            ("{{key}} = {{ value }}", "/a = <1>"),
            ("{{key}}\\t{{seq}}", "/a\t7"),
            ("{% if conflict %}{{heads|join(',')}}{% endif %}", "x,y"),
            ("{{heads|length}} {{heads[0]}}", "2 x"),
            ("{{type}}{{expires_ms}}", "put"),
            ("plain", "plain"),
        ] {
            assert_eq!(fill(template, object).as_deref(), Some(text), "{template}");
        }
        assert_eq!(
            fill("{% if not conflict %}{{key}}{% endif %}", object),
            None
        );
        assert_eq!(fill("{{key}}", r#"{"type":"caught_up"}"#), None);
        assert_eq!(
            fill("{{before.value}}", r#"{"type":"added","before":{}}"#),
            None
        );
    }

    #[test]
    fn wrong_templates_are_refused() {
        for (template, why) in [
            ("{{key", "the template is wrong"),
            ("{% if key %}", "the template is wrong"),
            (
                "{{vaule}}",
                "no command prints a field vaule: did you mean value?",
            ),
            ("{{qqqqqq}}", "lists the fields"),
        ] {
            let error = Template::parse(template).unwrap_err();
            assert!(error.contains(why), "{template}: {error}");
        }
    }
}
