//! What was done by hand, as a scenario: an afternoon of poking becomes a test.

use super::screen::Screen;
use crate::failure::Failure;

/// The scenario of everything that was done and worked.
///
/// # Errors
/// If nothing was.
pub(super) fn scenario(screen: &Screen) -> Result<String, Failure> {
    let deeds = screen.deeds();
    let Some(first) = deeds.first() else {
        return Err(Failure::usage(
            "nothing was done yet, so there is nothing to save",
        ));
    };
    let name = toml::Value::String(format!("done by hand to {}", screen.lab()));
    let (voters, observers) = screen.members();
    let mut text = format!(
        "# What was done by hand under `zklab watch`. `zklab run` does it again, with clients at work.\n\
         name = {name}\n\
         lab  = {{ nodes = {voters}, observers = {observers} }}\n\
         load = {{ clients = 8, rate = 1000 }}\n\
         step = [\n"
    );
    for deed in &deeds {
        let at_ms = deed.at_us.saturating_sub(first.at_us) / 1000 + 500;
        let words = toml::Value::String(deed.words.clone());
        text.push_str(&format!("  {{ at = \"{at_ms}ms\", do = {words} }},\n"));
    }
    text.push_str("]\n");
    Ok(text)
}
