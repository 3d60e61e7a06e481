//! A few seeds, so that the simulator keeps working; many more run from `scripts/sim`.

/// Seeds that run quickly, each with other faults.
const SEEDS: std::ops::Range<u64> = 1_000..1_012;

#[test]
fn a_few_seeds_pass() {
    // On all cores.
    std::thread::scope(|scope| {
        for seed in SEEDS {
            scope.spawn(move || {
                if let Err(failure) = mqtt_sim::run(seed, 600) {
                    panic!("{failure}");
                }
            });
        }
    });
}

#[test]
fn a_second_run_gives_the_same_to_the_byte() {
    for seed in SEEDS.take(3) {
        let hash = |run: Result<mqtt_sim::Report, Box<mqtt_sim::Failure>>| run.map(|report| report.hash);
        assert_eq!(hash(mqtt_sim::run(seed, 300)).ok(), hash(mqtt_sim::run_traced(seed, 300, 10)).ok());
    }
}
