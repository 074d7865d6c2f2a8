//! What is trained on, image by image.

use super::super::library::Library;
use super::super::shelf::Shelf;
use super::*;

/// What a run would learn from.
fn material(bench: &Bench, request: &Request) -> (Incoming, Material) {
    let spec = bench.place.registry.entry(&name()).unwrap().spec;
    let shelf = Shelf::open(&bench.place.store).unwrap();
    let examples = if request.feedback {
        shelf.examples(&name()).unwrap()
    } else {
        Vec::new()
    };
    let incoming = Incoming::read(&shelf, examples, &spec, &bench.place.images).unwrap();
    let mut without = shelf.erased().unwrap();
    without.extend(&incoming.data.hashes);
    let path = bench.folder.path().join("datasets/halves");
    let dataset = "halves".parse().unwrap();
    let library = Library::read(&dataset, &path, (&spec, &bench.place.images), &without).unwrap();
    let material = Material::mix(
        request,
        &spec,
        &incoming,
        Some(&library),
        bench.place.config.reservoir,
    );
    (incoming, material)
}

fn hashes(material: &Material, indices: &[usize]) -> HashSet<[u8; 32]> {
    indices.iter().map(|&index| material.data.hashes[index]).collect()
}

#[test]
fn both_sides_are_exact_and_apart() {
    let bench = Bench::with_samples();
    let (incoming, material) = material(&bench, &request());
    let (train, held) = (&material.split.train, &material.split.hold_out);
    let new: HashSet<[u8; 32]> = (0..SAMPLES)
        .map(|image| *Digest::of(&png(image)).bytes())
        .collect();
    assert_eq!((incoming.data.len(), incoming.unreadable), (150, 0));
    let new_held = new.iter().filter(|hash| is_held_out(hash)).count();
    let sides = [hashes(&material, train), hashes(&material, held)];
    // The reservoir holds 200 of some 270: the ratio would have some 540, the least 1,000.
    assert_eq!(train.len(), 150 - new_held + 200);
    assert_eq!(sides[0].len(), train.len());
    assert_eq!(sides[0].intersection(&new).count(), 150 - new_held);
    assert_eq!(sides[1].intersection(&new).count(), new_held);
    assert!(sides[0].iter().all(|hash| !is_held_out(hash)));
    assert!(sides[1].iter().all(is_held_out));
    // The gate's images are the dataset's test images and what is held out of the new ones; none is trained on.
    assert_eq!(
        (material.golden.incoming_from, material.golden.data.len()),
        (80, 80 + new_held)
    );
    assert!(
        material
            .golden
            .data
            .hashes
            .iter()
            .all(|hash| !sides[0].contains(hash))
    );
    assert_eq!(
        material.told["replay"]["per_class"],
        serde_json::json!([100, 100])
    );
    assert_eq!(
        material.told["feedback"]["sources"],
        serde_json::json!({"s0": 50, "s1": 50, "s2": 50})
    );
    assert_eq!(material.told["trained_on"], train.len());
}

#[test]
fn what_is_erased_is_on_no_side() {
    let bench = Bench::with_samples();
    let held_out = |&image: &u64| is_held_out(Digest::of(&png(image)).bytes());
    let of_new = (0..SAMPLES).find(|image| !held_out(image)).unwrap();
    bench.erase(of_new);
    // An image of a dataset is known by its pixels.
    let of_old = pixels(10_000);
    let test = pixels(20_000);
    bench.with_store(async |store| {
        for image in [&of_old, &test] {
            store.erase(&Digest::of(image), NOW).await.unwrap();
        }
    });
    let (incoming, material) = material(&bench, &request());
    assert_eq!(incoming.data.len(), 149);
    let gone = [png(of_new), of_old, test].map(|image| *Digest::of(&image).bytes());
    for data in [&material.data, &material.golden.data] {
        assert!(data.hashes.iter().all(|hash| !gone.contains(hash)));
    }
    assert_eq!(material.golden.incoming_from, 79);
}

#[test]
fn a_dataset_alone_is_learnt_whole_and_feedback_alone_is_not_diluted() {
    let bench = Bench::with_samples();
    let alone = Request {
        feedback: false,
        dataset: Some("halves".parse().unwrap()),
        ..request()
    };
    let (_, whole) = material(&bench, &alone);
    assert_eq!(whole.data.len(), 300);
    assert_eq!(whole.golden.data.len(), 80);
    let without = Request {
        without_replay: true,
        ..request()
    };
    let (incoming, undiluted) = material(&bench, &without);
    assert_eq!(undiluted.split.train.len(), incoming.split.train.len());
    assert_eq!(undiluted.golden.incoming_from, 80);
}

#[test]
fn what_cannot_be_read_is_left_out_and_counted() {
    let bench = Bench::with_samples();
    bench.with_store(async |store| {
        let sample = Sample {
            model: name(),
            image: b"no image".to_vec().into(),
            label: 1,
            source: "s".parse().unwrap(),
            key: None,
        };
        let classes = Classes::from([(name(), 2)]);
        store.sample(&sample, &classes, NOW).await.unwrap();
    });
    let (incoming, _) = material(&bench, &request());
    assert_eq!(
        (incoming.data.len(), incoming.examples.len(), incoming.unreadable),
        (150, 150, 1)
    );
    let aligned = incoming.examples.iter().zip(&incoming.data.hashes);
    assert!(
        aligned
            .into_iter()
            .all(|(example, hash)| example.sha256.bytes() == hash)
    );
}
