// The name "gpt2" means a small model with random weights and GPT-2's tokenizer, in a cache like Hugging Face's. It and
// what the guide's snippets write go to a folder that ends with them.
{
    use ironlens::prelude::*;
    let folder = include!("in_a_folder.rs");
    let cfg = Config {
        d_model: 8,
        d_head: 4,
        n_layers: 2,
        n_ctx: 64,
        d_vocab: 50257,
        act_fn: ActFn::Gelu,
        ..Config::default()
    };
    let mut model = HookedTransformer::new(cfg, &Device::Cpu, 3)?;
    let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/reference/tokenizers/gpt2");
    model.set_tokenizer(ironlens::tokenizer::HookedTokenizer::from_folder(tokenizer)?)?;
    let commit = "607a30d783dfa663caf39e06633721c8d4cfcd7e";
    let repository = folder.0.join("hub/models--gpt2");
    for part in ["refs", "snapshots"] {
        std::fs::create_dir_all(repository.join(part))?;
    }
    std::fs::write(repository.join("refs/main"), commit)?;
    model.save_pretrained(repository.join("snapshots").join(commit))?;
    // SAFETY: a snippet of the guide is a process of its own, with no other thread yet that reads the environment.
    unsafe {
        std::env::set_var("HF_HUB_CACHE", folder.0.join("hub"));
        std::env::set_var("HF_HUB_OFFLINE", "1");
    }
    folder
}
