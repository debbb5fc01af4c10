//! Short names of activations, by TransformerLens's `get_act_name`.

/// The full name of an activation, from a short one: `("k", 6)` is `blocks.6.attn.hook_k`.
///
/// The rules are TransformerLens's, to the letter:
/// - A name with a dot in it, or starting with `hook_`, is already full if neither layer nor layer type is given.
/// - Lower-case letters and digits at the start are name and layer, and what follows is the layer type; they
///   replace the arguments: `k6`, `pre5`, `scale4ln1`.
/// - `attn` is `pattern`, `attn_logits` is `attn_scores`; `key`, `query`, `value` are `k`, `q`, `v`; `mlp_pre`,
///   `mlp_mid`, `mlp_post` are `pre`, `mid`, `post`.
/// - What attention computes is in `attn`, what the MLP computes in `mlp`, whatever the layer type. For others the
///   type is `ln1`, `ln2` and so on; `a` and `attention` mean `attn`, `m` means `mlp`, and `b`, `block`, `blocks`
///   mean the block itself.
/// - `scale` and `normalized` without a layer are those of `ln_final`.
///
/// Nothing is checked against a model: a name that means nothing gives a full name that means nothing. Layers
/// counted from the end are for [`resolve_act_name`], which knows how many there are.
///
/// ```
/// use ironlens_transformer::names::get_act_name;
///
/// assert_eq!(get_act_name("k", Some(6), None), "blocks.6.attn.hook_k");
/// assert_eq!(get_act_name("normalized", Some(27), Some("ln2")), "blocks.27.ln2.hook_normalized");
/// assert_eq!(get_act_name("embed", None, None), "hook_embed");
/// assert_eq!(get_act_name("scale4ln1", None, None), "blocks.4.ln1.hook_scale");
/// ```
pub fn get_act_name(name: &str, layer: Option<isize>, layer_type: Option<&str>) -> String {
    if (name.contains('.') || name.starts_with("hook_")) && layer.is_none() && layer_type.is_none() {
        return name.into();
    }
    // The layer stays text, as written: TransformerLens makes "k06" into blocks.06.
    let given = layer.map(|layer| layer.to_string());
    let (name, layer, layer_type) = match split_short(name) {
        Some((name, layer, layer_type)) => (name, Some(layer), Some(layer_type)),
        None => (name, given.as_deref(), layer_type),
    };
    let name = match name {
        "attn" => "pattern",
        "attn_logits" => "attn_scores",
        "key" => "k",
        "query" => "q",
        "value" => "v",
        "mlp_pre" => "pre",
        "mlp_mid" => "mid",
        "mlp_post" => "post",
        other => other,
    };
    let layer_type = match (name, layer_type) {
        ("k" | "v" | "q" | "z" | "rot_k" | "rot_q" | "result" | "pattern" | "attn_scores", _) => "attn",
        ("pre" | "post" | "mid" | "pre_linear", _) => "mlp",
        (_, Some("a" | "attention")) => "attn",
        (_, Some("m")) => "mlp",
        (_, Some("b" | "block" | "blocks") | None) => "",
        (_, Some(other)) => other,
    };
    let root = if layer.is_none() && matches!(name, "scale" | "normalized") { "ln_final." } else { "" };
    let block = layer.map_or(String::new(), |layer| format!("blocks.{layer}."));
    let dot = if layer_type.is_empty() { "" } else { "." };
    format!("{root}{block}{layer_type}{dot}hook_{name}")
}

/// What Python's `re.match(r"([a-z]+)(\d+)([a-z]?.*)", name)` finds: name, layer and the rest of the line.
fn split_short(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.split('\n').next().unwrap_or(text);
    let (name, rest) = text.split_at(text.find(|c: char| !c.is_ascii_lowercase())?);
    let (layer, layer_type) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    (!name.is_empty() && !layer.is_empty()).then_some((name, layer, layer_type))
}

/// An activation by its full or short name, with the layer and layer type a short name needs: what an activation
/// cache is indexed by. Made from `"blocks.0.hook_resid_pre"`, `("resid_pre", 0)`, `("scale", -1, "ln2")`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ActKey<'a> {
    /// The name, full or short.
    pub name: &'a str,
    /// The layer; a negative one counts from the end.
    pub layer: Option<isize>,
    /// The part of the block.
    pub layer_type: Option<&'a str>,
}

impl<'a> From<&'a str> for ActKey<'a> {
    fn from(name: &'a str) -> Self {
        ActKey { name, layer: None, layer_type: None }
    }
}

impl<'a> From<&'a String> for ActKey<'a> {
    fn from(name: &'a String) -> Self {
        ActKey { name, layer: None, layer_type: None }
    }
}

impl<'a, L: Into<LayerIndex>> From<(&'a str, L)> for ActKey<'a> {
    fn from((name, layer): (&'a str, L)) -> Self {
        ActKey { name, layer: Some(layer.into().0), layer_type: None }
    }
}

impl<'a, L: Into<LayerIndex>> From<(&'a str, L, &'a str)> for ActKey<'a> {
    fn from((name, layer, layer_type): (&'a str, L, &'a str)) -> Self {
        ActKey { name, layer: Some(layer.into().0), layer_type: Some(layer_type) }
    }
}

/// A layer, by a number of any type; a negative one counts from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerIndex(pub isize);

macro_rules! layers {
    ($($number:ty)*) => {$(
        impl From<$number> for LayerIndex {
            /// What is beyond any model stays so.
            fn from(layer: $number) -> LayerIndex {
                LayerIndex(layer.try_into().unwrap_or(isize::MAX))
            }
        }
    )*};
}
layers!(i32 u32 isize usize);

/// The full name of an activation of a layer, by its short name: [`get_act_name`] for the common case.
///
/// ```
/// use ironlens_transformer::names::act;
///
/// for layer in 0..2_usize {
///     assert_eq!(act("z", layer), format!("blocks.{layer}.attn.hook_z"));
/// }
/// ```
pub fn act(name: &str, layer: impl Into<LayerIndex>) -> String {
    get_act_name(name, Some(layer.into().0), None)
}

/// The full name of an activation in a model of `n_layers` layers, as TransformerLens's cache finds it: by
/// [`get_act_name`], once a negative layer has been counted from the end.
///
/// # Errors
/// A layer that the model does not have.
///
/// ```
/// use ironlens_transformer::names::resolve_act_name;
///
/// assert_eq!(resolve_act_name(("attn", -1), 2)?, "blocks.1.attn.hook_pattern");
/// assert_eq!(resolve_act_name("hook_embed", 2)?, "hook_embed");
/// # Ok::<(), ironlens_transformer::names::LayerOutOfRange>(())
/// ```
pub fn resolve_act_name<'a>(key: impl Into<ActKey<'a>>, n_layers: usize) -> Result<String, LayerOutOfRange> {
    let key = key.into();
    let layer = key.layer.map(|layer| resolve_layer(layer, n_layers)).transpose()?;
    // A layer below isize::MAX, since it came from an isize.
    Ok(get_act_name(key.name, layer.map(|layer| layer as isize), key.layer_type))
}

/// The layer meant by a number that counts from the end if it is negative: -1 is the last of `n_layers`.
///
/// # Errors
/// A layer that the model does not have.
pub fn resolve_layer(layer: isize, n_layers: usize) -> Result<usize, LayerOutOfRange> {
    let error = LayerOutOfRange { layer, n_layers };
    let resolved = if layer < 0 { n_layers.checked_sub(layer.unsigned_abs()) } else { Some(layer.unsigned_abs()) };
    resolved.filter(|layer| *layer < n_layers).ok_or(error)
}

/// A layer that the model does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no layer {layer} in a model of {n_layers} layers: layers are 0 to {}, or -{n_layers} to -1 from the end", .n_layers.saturating_sub(1))]
pub struct LayerOutOfRange {
    /// The layer asked for.
    pub layer: isize,
    /// How many there are.
    pub n_layers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TransformerLens 2.18's own answers.
    #[test]
    fn names_are_transformerlens_names() {
        let cases: &[(&str, Option<isize>, Option<&str>, &str)] = &[
            ("blocks.3.attn.hook_q", None, None, "blocks.3.attn.hook_q"),
            ("hook_embed", None, None, "hook_embed"),
            ("hook_embed", Some(2), None, "blocks.2.hook_hook_embed"),
            ("blocks.0.x", Some(1), None, "blocks.1.hook_blocks.0.x"),
            ("hook_q", None, Some("attn"), "attn.hook_hook_q"),
            ("k", Some(6), Some("a"), "blocks.6.attn.hook_k"),
            ("pre", Some(2), None, "blocks.2.mlp.hook_pre"),
            ("embed", None, None, "hook_embed"),
            ("pos_embed", None, None, "hook_pos_embed"),
            ("tokens", None, None, "hook_tokens"),
            ("normalized", Some(27), Some("ln2"), "blocks.27.ln2.hook_normalized"),
            ("k6", None, None, "blocks.6.attn.hook_k"),
            ("scale4ln1", None, None, "blocks.4.ln1.hook_scale"),
            ("pre5", None, None, "blocks.5.mlp.hook_pre"),
            ("k6", Some(3), Some("mlp"), "blocks.6.attn.hook_k"),
            ("k06", None, None, "blocks.06.attn.hook_k"),
            ("q1mlp", None, None, "blocks.1.attn.hook_q"),
            ("mlp_out3", None, None, "hook_mlp_out3"),
            ("resid_pre3", None, None, "hook_resid_pre3"),
            ("resid_pre", Some(3), None, "blocks.3.hook_resid_pre"),
            ("resid_mid", Some(0), None, "blocks.0.hook_resid_mid"),
            ("resid_post", Some(11), None, "blocks.11.hook_resid_post"),
            ("attn_out", Some(1), None, "blocks.1.hook_attn_out"),
            ("mlp_out", Some(1), None, "blocks.1.hook_mlp_out"),
            ("mlp_in", Some(1), None, "blocks.1.hook_mlp_in"),
            ("attn", Some(0), None, "blocks.0.attn.hook_pattern"),
            ("attn0", None, None, "blocks.0.attn.hook_pattern"),
            ("attn_logits", Some(0), None, "blocks.0.attn.hook_attn_scores"),
            ("key", Some(1), None, "blocks.1.attn.hook_k"),
            ("query", Some(1), None, "blocks.1.attn.hook_q"),
            ("value", Some(1), None, "blocks.1.attn.hook_v"),
            ("mlp_pre", Some(1), None, "blocks.1.mlp.hook_pre"),
            ("mlp_mid", Some(1), None, "blocks.1.mlp.hook_mid"),
            ("mlp_post", Some(1), None, "blocks.1.mlp.hook_post"),
            ("k", Some(1), None, "blocks.1.attn.hook_k"),
            ("v", Some(1), None, "blocks.1.attn.hook_v"),
            ("q", Some(1), None, "blocks.1.attn.hook_q"),
            ("z", Some(1), None, "blocks.1.attn.hook_z"),
            ("rot_k", Some(1), None, "blocks.1.attn.hook_rot_k"),
            ("rot_q", Some(1), None, "blocks.1.attn.hook_rot_q"),
            ("result", Some(1), None, "blocks.1.attn.hook_result"),
            ("pattern", Some(1), None, "blocks.1.attn.hook_pattern"),
            ("attn_scores", Some(1), None, "blocks.1.attn.hook_attn_scores"),
            ("post", Some(1), None, "blocks.1.mlp.hook_post"),
            ("mid", Some(1), None, "blocks.1.mlp.hook_mid"),
            ("pre_linear", Some(1), None, "blocks.1.mlp.hook_pre_linear"),
            ("z", Some(1), Some("ln1"), "blocks.1.attn.hook_z"),
            ("pre", Some(1), Some("attn"), "blocks.1.mlp.hook_pre"),
            ("scale", None, None, "ln_final.hook_scale"),
            ("normalized", None, None, "ln_final.hook_normalized"),
            ("scale", Some(1), None, "blocks.1.hook_scale"),
            ("scale", Some(1), Some("ln1"), "blocks.1.ln1.hook_scale"),
            ("scale", Some(1), Some("ln1_post"), "blocks.1.ln1_post.hook_scale"),
            ("scale", None, Some("ln1"), "ln_final.ln1.hook_scale"),
            ("scale", Some(1), Some("m"), "blocks.1.mlp.hook_scale"),
            ("scale", Some(1), Some("a"), "blocks.1.attn.hook_scale"),
            ("scale", Some(1), Some("attention"), "blocks.1.attn.hook_scale"),
            ("scale", Some(1), Some("b"), "blocks.1.hook_scale"),
            ("scale", Some(1), Some("block"), "blocks.1.hook_scale"),
            ("scale", Some(1), Some("blocks"), "blocks.1.hook_scale"),
            ("foo", Some(1), Some("bar"), "blocks.1.bar.hook_foo"),
            ("foo", Some(1), Some(""), "blocks.1.hook_foo"),
            ("foo", None, Some("bar"), "bar.hook_foo"),
            ("scale2ln1_post", None, None, "blocks.2.ln1_post.hook_scale"),
            ("scale2.q", None, None, "scale2.q"),
            ("normalized3mlp.ln", None, None, "normalized3mlp.ln"),
            ("resid3", None, None, "blocks.3.hook_resid"),
            ("K6", None, None, "hook_K6"),
            ("6k", None, None, "hook_6k"),
            ("k_6", None, None, "hook_k_6"),
            ("k6 x", None, None, "blocks.6.attn.hook_k"),
            ("", None, None, "hook_"),
            ("", Some(1), None, "blocks.1.hook_"),
            ("q", Some(-1), None, "blocks.-1.attn.hook_q"),
            ("q_input", Some(0), None, "blocks.0.hook_q_input"),
            ("k_input", Some(0), None, "blocks.0.hook_k_input"),
            ("v_input", Some(0), None, "blocks.0.hook_v_input"),
            ("attn_in", Some(0), None, "blocks.0.hook_attn_in"),
            ("pattern", None, None, "attn.hook_pattern"),
            ("k", None, None, "attn.hook_k"),
            ("q", None, Some("a"), "attn.hook_q"),
            ("pre", None, None, "mlp.hook_pre"),
            ("scale1b", None, None, "blocks.1.hook_scale"),
            ("x2blocks", None, None, "blocks.2.hook_x"),
            ("x2m", None, None, "blocks.2.mlp.hook_x"),
            ("x2attention", None, None, "blocks.2.attn.hook_x"),
            ("key3", None, None, "blocks.3.attn.hook_k"),
            ("query3", None, None, "blocks.3.attn.hook_q"),
            ("mlp_pre3", None, None, "hook_mlp_pre3"),
            ("hook_q1", None, None, "hook_q1"),
            ("hook_q1", Some(0), None, "blocks.0.hook_hook_q1"),
            ("q1\nx", None, None, "blocks.1.attn.hook_q"),
            ("experts2", None, None, "blocks.2.hook_experts"),
            ("rot_q2", None, None, "hook_rot_q2"),
            ("embed", Some(0), None, "blocks.0.hook_embed"),
        ];
        for (name, layer, layer_type, expected) in cases {
            assert_eq!(get_act_name(name, *layer, *layer_type), *expected, "{name:?} {layer:?} {layer_type:?}");
        }
    }

    #[test]
    fn layers_count_from_the_end() {
        assert_eq!(resolve_act_name(("resid_pre", -1), 3).unwrap(), "blocks.2.hook_resid_pre");
        assert_eq!(resolve_act_name(("scale", -3, "ln2"), 3).unwrap(), "blocks.0.ln2.hook_scale");
        assert_eq!(resolve_act_name("scale", 3).unwrap(), "ln_final.hook_scale");
        assert_eq!(resolve_act_name(&String::from("k2"), 3).unwrap(), "blocks.2.attn.hook_k");
        for layer in [3, -4, isize::MIN, isize::MAX] {
            let error = resolve_act_name(("k", layer), 3).unwrap_err();
            assert_eq!(error, LayerOutOfRange { layer, n_layers: 3 });
            assert!(error.to_string().contains("0 to 2"), "{error}");
        }
        assert!(resolve_layer(0, 0).is_err());
    }
}
