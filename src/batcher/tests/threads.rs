//! Workers that run as they do in service.

use std::thread;

use super::*;
use crate::engine::device::Device;
use crate::engine::{Plan, Slot};
use crate::model::{Input, Weights, arch};

#[test]
fn a_slot_answers_by_its_plan() {
    let input = Input {
        channels: 1,
        height: 8,
        width: 8,
    };
    let graph = arch::build("small-cnn", input, 3).unwrap();
    let weights = Weights::initialise(&graph, 1).unwrap();
    let plan = Plan::compile(Version::FIRST, &graph, &weights, &Device::Cpu).unwrap();
    let model = Metrics::new(&[]).model(&"digits".parse().unwrap(), Version::FIRST);
    let slot = Arc::new(Slot::new(Arc::clone(&plan)));
    let (batcher, mut workers) = Batcher::new(sized(8, 0, 8), &slot, 1, model);
    let submit = |tensor: Vec<f32>| {
        let (item, receiver) = item(tensor, None);
        batcher.submit(item);
        receiver
    };
    let images = [vec![0.25; 64], (0..64u8).map(|i| f32::from(i) / 64.0).collect()];
    let receivers: Vec<_> = images.iter().map(|image| submit(image.clone())).collect();
    let short = submit(vec![0.25; 63]);
    batcher.close();
    let worker = workers.remove(0);
    // Of its own, for the worker prepares it.
    let ended = thread::scope(|scope| scope.spawn(move || worker.run()).join().unwrap());
    assert_eq!(ended, Ok(()));
    let mut expected = Vec::new();
    for (image, receiver) in images.iter().zip(receivers) {
        plan.run(image, 1, &mut expected).unwrap();
        let answer = answer(receiver).unwrap();
        assert_eq!((answer.version, &answer.logits), (Version::FIRST, &expected));
    }
    assert_eq!(answer(short), Err(ItemError::Inference));
}

#[test]
fn every_item_of_many_threads_gets_its_own_logits() {
    for delay_us in [0, 200] {
        let engine = Arc::new(Engine::default());
        let model = Metrics::new(&[]).model(&"digits".parse().unwrap(), Version::FIRST);
        let (batcher, workers) = Batcher::new(sized(8, delay_us, 128), &engine, 2, Arc::clone(&model));
        let submit = |n: u16| {
            let (item, receiver) = item(vec![f32::from(n), f32::from(Kind::Good as u8)], None);
            batcher.submit(item);
            (f32::from(n), receiver)
        };
        // 2,000 each, 16 at a time, so that workers fall asleep between. All are one client, which may have 96 places.
        let submitter = |thread: u16| {
            for window in 0..125 {
                let first = thread * 2000 + window * 16;
                let sent: Vec<_> = (first..first + 16).map(submit).collect();
                for (n, receiver) in sent {
                    let answer = receiver.blocking_recv().expect("answered");
                    assert_eq!(answer.expect("there is room").logits, [n, -n]);
                }
            }
        };
        thread::scope(|scope| {
            for worker in workers {
                scope.spawn(move || worker.run().unwrap());
            }
            let submitters = [0, 1, 2, 3].map(|thread| scope.spawn(move || submitter(thread)));
            let ended = submitters.map(|submitter| submitter.join());
            // Before a failure is told, or the workers would wait for ever.
            batcher.close();
            ended.into_iter().for_each(|ended| ended.unwrap());
        });
        assert_eq!(model.queue_depth.get(), 0);
        let runs = engine.log.runs.lock().unwrap();
        assert_eq!(runs.iter().map(|run| run.items.len()).sum::<usize>(), 8000);
    }
}
