//! Input that cannot be gets an error that says what was given and what was expected.

use clap::Parser;
use ironlens::prelude::*;
use ironlens_cli::Cli;
use ironlens_tests::{small_model, tokens};

#[test]
fn configurations_that_cannot_be() {
    let good = small_model().config().clone();
    let refuse = |change: fn(&mut Config), words: &[&str]| {
        let mut cfg = good.clone();
        change(&mut cfg);
        let error = HookedTransformer::new(cfg, &Device::Cpu, 0).unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    refuse(
        |c| {
            c.n_heads = 0;
            c.d_head = 7;
        },
        &["d_model", "24", "7"],
    );
    refuse(|c| c.n_layers = 0, &["n_layers", "0"]);
    refuse(|c| c.d_vocab = 0, &["d_vocab"]);
    refuse(|c| c.act_fn = ActFn::Unset, &["act_fn"]);
    refuse(|c| c.n_key_value_heads = 2, &["n_key_value_heads", "2", "3"]);
    let typo = Config::from_json("{\"d_modle\": 4}").unwrap_err().to_string();
    assert!(typo.contains("d_modle") && typo.contains("d_model"), "{typo}");
    let act = Config::from_json("{\"act_fn\": \"gleu\"}").unwrap_err().to_string();
    assert!(act.contains("gleu") && act.contains("gelu"), "{act}");
}

#[test]
fn tokens_that_cannot_be() {
    let model = small_model();
    let unknown = model.forward(&IndexTensor::from([[0, 1], [2, 17]])).unwrap_err().to_string();
    assert!(unknown.contains("token 17 at batch 1, position 1") && unknown.contains("0 to 16"), "{unknown}");
    let long = model.forward(&tokens(1, 13)).unwrap_err().to_string();
    assert!(long.contains("13 positions") && long.contains("12"), "{long}");
    assert!(model.forward(&IndexTensor::new(vec![], &[0, 4])).unwrap_err().to_string().contains("[0, 4]"));
    let mask = IndexTensor::from([[1, 1, 1]]);
    assert!(model.call(&tokens(1, 4)).attention_mask(&mask).output().unwrap_err().to_string().contains("[1, 3]"));
    let middle = Tensor::zeros(&[1, 4, 24], DType::F32, &Device::Cpu);
    assert!(model.call(&middle).output().unwrap_err().to_string().contains("start_at_layer"));
    assert!(model.call(&tokens(1, 4)).start_at_layer(1).output().is_err());
    assert!(model.call(&tokens(1, 4)).stop_at_layer(5).output().unwrap_err().to_string().contains("no layer 5"));
    let alone = model.call(&tokens(1, 1)).return_type(ReturnType::Loss).output().unwrap_err().to_string();
    assert!(alone.contains("two positions"), "{alone}");
}

#[test]
fn commands_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let fails = |args: &[&str], words: &[&str]| {
        let cli = Cli::try_parse_from([&["ironlens"], args].concat()).unwrap();
        let error = format!("{:#}", cli.run().unwrap_err());
        for word in words {
            assert!(error.contains(word), "{error} lacks {word}");
        }
    };
    let out = at("run");
    for (flag, value) in [("--lr", "-1"), ("--steps", "0"), ("--device", "tpu")] {
        let given = format!("{flag}={value}");
        let error = Cli::try_parse_from(["ironlens", "train", &given, "--out", &out]).unwrap_err().to_string();
        assert!(error.contains(flag) && error.contains(&format!("'{value}'")), "{error}");
    }
    assert!(!folder.path().join("run").exists(), "nothing is left behind");
    fails(&["report", &at("none")], &["none", "not a usable run"]);
    fails(&["train", "--resume", &at("none")], &["not a usable run"]);
    fails(&["verify", &at("none")], &["none"]);
    let toml = at("c.toml");
    std::fs::write(&toml, "[model]\nd_modle = 5\n").unwrap();
    fails(&["train", "--config", &toml, "--out", &out], &["c.toml", "d_modle"]);
    std::fs::write(&toml, "[train]\nspeed = 5\n").unwrap();
    fails(&["train", "--config", &toml, "--out", &out], &["c.toml", "speed"]);
    std::fs::write(&toml, "[modle]\n").unwrap();
    fails(&["train", "--config", &toml, "--out", &out], &["modle"]);
    fails(&["train", "--config", &at("no.toml"), "--out", &out], &["no.toml"]);
    let file = at("file");
    std::fs::write(&file, "").unwrap();
    fails(&["train", "--preset", "tiny", "--out", &format!("{file}/run")], &["file/run"]);
    assert!(Cli::try_parse_from(["ironlens", "train", "--resume", "x", "--steps", "5"]).is_err());
}

#[test]
fn a_small_pipeline_leaves_a_run_and_a_report() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let toml = at("c.toml");
    std::fs::write(
        &toml,
        "[model]\nd_model = 16\nd_head = 8\nn_heads = 2\nd_mlp = 32\nn_ctx = 8\n[train]\nbatch_size = 2\n",
    )
    .unwrap();
    let (out, figures) = (at("run"), at("figures"));
    let args =
        ["pipeline", "--preset", "tiny", "--config", &toml, "--steps", "12", "--out", &out, "--figures", &figures];
    let args = [&args[..], &["--device", "cpu"]].concat();
    let cli = Cli::try_parse_from([&["ironlens"], &args[..]].concat()).unwrap();
    assert!(cli.run().unwrap());
    let page = std::fs::read_to_string(folder.path().join("run/report.html")).unwrap();
    for text in ["HookedTransformer(", "blocks.1.attn.hook_pattern", "previous token", "model.d_model"] {
        assert!(page.contains(text), "the report lacks {text}");
    }
    let pictures = std::fs::read_dir(&figures).unwrap().count();
    assert!(pictures >= 8, "{pictures} pictures");
}
