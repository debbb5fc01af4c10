//! scratch
use ironlens_tensor::Device;
use ironlens_train::*;
use ironlens_transformer::*;
use std::time::Instant;
fn main() {
    let p = Preset::Notebook;
    let t = Instant::now();
    let mut model = HookedTransformer::new(p.model(), &Device::Cpu, 42).unwrap();
    println!("init {:?}", t.elapsed());
    let mut data = RandomTokens::new(model.config(), 137).unwrap();
    for b in [1, 8] {
        let x = data.batch(b).unwrap();
        let mut v = vec![]; let mut c = vec![];
        for _ in 0..10 { let t = Instant::now(); model.forward(&x).unwrap(); v.push(t.elapsed().as_secs_f64());
            let t = Instant::now(); model.run_with_cache(&x).unwrap(); c.push(t.elapsed().as_secs_f64()); }
        v.sort_by(f64::total_cmp); c.sort_by(f64::total_cmp);
        println!("b{b} forward {:.4} min {:.4}; cache {:.4} min {:.4}", v[5], v[0], c[5], c[0]);
    }
    let mut opt = AdamW::new((0.9, 0.95), 1e-8, 0.1);
    let mut v = vec![]; let mut f = vec![]; let mut o = vec![];
    for i in 0..12 {
        let t = Instant::now();
        let x = data.batch(8).unwrap();
        let (loss, g) = model.call(&x).gradients(|out| previous_token_loss(out.logits(), &x)).unwrap();
        let tg = t.elapsed().as_secs_f64();
        let n = g.norm();
        let s = g.into_slots();
        let t1 = Instant::now();
        opt.step(model.params_mut(), &s, 1e-4, clip_coefficient(n, Some(1.0)));
        let to = t1.elapsed().as_secs_f64();
        drop(s);
        if i > 1 { v.push(t.elapsed().as_secs_f64()); f.push(tg); o.push(to); }
        print!("{loss:.3} a{} ", ironlens_tensor::fresh_allocations());
    }
    for x in [&mut v, &mut f, &mut o] { x.sort_by(f64::total_cmp); }
    println!("\nstep median {:.4} min {:.4}; grad {:.4} min {:.4}; opt {:.4}", v[5], v[0], f[5], f[0], o[5]);
}
