use super::*;
use ChildState as S;

fn life(restart: Restart) -> Life {
    Life::new(restart)
}

fn said(message: FromWorker) -> Event {
    Event::Said(message)
}

fn stopped(reason: StopReason) -> Event {
    said(FromWorker::Stopped { reason })
}

/// Sends events that must be taken; the actions of the last.
fn run(life: &mut Life, events: &[Event]) -> Vec<Action> {
    let actions = events.iter().map(|event| life.on(event.clone()).unwrap());
    actions.last().unwrap_or_default()
}

fn running(restart: Restart) -> Life {
    let mut life = life(restart);
    let actions = run(
        &mut life,
        &[Event::Start, Event::Built, said(FromWorker::Ready)],
    );
    assert_eq!(actions, [Action::Tell(ToWorker::Run)]);
    run(&mut life, &[said(FromWorker::Running)]);
    assert_eq!((life.state(), life.starts), (S::Running, 1));
    life
}

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn a_reset_starts_it_again_and_a_power_off_does_not() {
    let mut life = running(Restart::OnReset);
    let actions = run(&mut life, &[stopped(StopReason::Reset)]);
    assert_eq!(actions, [Action::NoWake, Action::TakeApart]);
    assert_eq!(
        run(&mut life, &[Event::Gone(LONG)]),
        [Action::Wake(RESTART_MIN)]
    );
    assert_eq!(life.state(), S::Waiting);
    assert!(run(&mut life, &[Event::Time]).contains(&Action::Build));
    run(
        &mut life,
        &[
            Event::Built,
            said(FromWorker::Ready),
            said(FromWorker::Running),
        ],
    );
    run(
        &mut life,
        &[stopped(StopReason::PowerOff), Event::Gone(LONG)],
    );
    assert_eq!((life.state(), life.starts), (S::Stopped, 2));
    assert_eq!(life.last_end.as_deref(), Some("it switched itself off"));
}

#[test]
fn policies_differ() {
    let goes_on = |restart, event: Event| {
        let mut life = running(restart);
        run(&mut life, &[event, Event::Gone(LONG)]);
        life.state() == S::Waiting
    };
    let fault = stopped(StopReason::TripleFault { vp: 0, rip: 0 });
    for (restart, reset, off, crash, death) in [
        (Restart::Never, false, false, false, false),
        (Restart::OnReset, true, false, false, true),
        (Restart::Always, true, true, true, true),
    ] {
        assert_eq!(goes_on(restart, stopped(StopReason::Reset)), reset);
        assert_eq!(goes_on(restart, stopped(StopReason::PowerOff)), off);
        assert_eq!(goes_on(restart, fault.clone()), crash);
        assert_eq!(goes_on(restart, Event::WorkerGone), death);
    }
}

#[test]
fn restarts_that_fail_soon_come_ever_slower() {
    let mut life = running(Restart::Always);
    let mut last = Duration::ZERO;
    for _ in 0..30 {
        run(&mut life, &[Event::WorkerGone]);
        let actions = run(&mut life, &[Event::Gone(Duration::ZERO)]);
        let [Action::Wake(pause)] = actions[..] else {
            panic!("{actions:?}")
        };
        assert!(pause >= last && pause <= RESTART_MAX);
        last = pause;
        run(&mut life, &[Event::Time, Event::Built]);
    }
    assert_eq!(last, RESTART_MAX);
    run(&mut life, &[Event::WorkerGone]);
    assert_eq!(
        run(&mut life, &[Event::Gone(LONG)]),
        [Action::Wake(RESTART_MIN)]
    );
}

#[test]
fn stopping_tries_the_button_then_the_worker_then_takes_it_apart() {
    let mut life = running(Restart::Always);
    let second = Duration::from_secs(1);
    assert_eq!(
        run(&mut life, &[Event::Stop(1)]),
        [Action::Tell(ToWorker::PowerButton), Action::Wake(second)]
    );
    assert_eq!(
        run(&mut life, &[Event::Time]),
        [Action::Tell(ToWorker::Stop), Action::Wake(FLUSH)]
    );
    assert_eq!(
        run(&mut life, &[Event::Time]),
        [Action::NoWake, Action::TakeApart]
    );
    run(&mut life, &[Event::Gone(LONG)]);
    assert_eq!(life.state(), S::Stopped);

    let mut life = running(Restart::Always);
    run(
        &mut life,
        &[
            Event::Stop(9),
            stopped(StopReason::Reset),
            Event::Gone(LONG),
        ],
    );
    assert_eq!(life.state(), S::Stopped, "a wish to stop outdoes a reset");
    let mut life = running(Restart::Always);
    assert_eq!(
        run(&mut life, &[Event::Stop(9), Event::Stop(0)]),
        [Action::Tell(ToWorker::Stop), Action::Wake(FLUSH)]
    );
    run(&mut life, &[Event::WorkerGone, Event::Gone(LONG)]);
    assert_eq!(life.state(), S::Stopped);
}

#[test]
fn pausing_and_resuming() {
    let mut life = running(Restart::Never);
    assert!(life.on(Event::Resume).unwrap().is_empty());
    run(&mut life, &[Event::Pause, said(FromWorker::Paused)]);
    assert_eq!(life.state(), S::Paused);
    assert!(life.on(Event::Start).unwrap_err().contains("paused"));
    let resume = [Action::Tell(ToWorker::Resume), Action::Wake(PAUSE)];
    assert_eq!(run(&mut life, &[Event::Resume]), resume);
    // A worker that does not answer keeps nobody waiting, and may be asked again.
    let refused = run(&mut life, &[Event::Time]);
    assert!(matches!(&refused[..], [Action::Refuse(_)]), "{refused:?}");
    assert_eq!(run(&mut life, &[Event::Resume]), resume);
    let actions = run(&mut life, &[said(FromWorker::Running)]);
    assert_eq!(actions, [Action::NoWake]);
    assert_eq!(life.state(), S::Running);
    assert!(Life::new(Restart::Never).on(Event::Pause).is_err());
    // A worker that cannot stop them lets them go on.
    run(&mut life, &[Event::Pause]);
    assert_eq!(
        run(&mut life, &[Event::Time]),
        [Action::Tell(ToWorker::Resume)]
    );
    assert_eq!(life.state(), S::Running);
}

#[test]
fn what_cannot_be_built_is_taken_apart_and_told() {
    let mut life = life(Restart::Always);
    let actions = run(
        &mut life,
        &[Event::Start, Event::BuildFailed("no kernel".into())],
    );
    assert_eq!(actions, [Action::NoWake, Action::TakeApart]);
    run(&mut life, &[Event::Gone(Duration::ZERO)]);
    assert_eq!(life.state(), S::Stopped);
    assert_eq!(life.last_end.as_deref(), Some("no kernel"));
    // The worker may find it out as well.
    let text = "kernel: not one".to_owned();
    run(&mut life, &[Event::Start, Event::Built]);
    run(
        &mut life,
        &[
            stopped(StopReason::Failed { text }),
            Event::Gone(Duration::ZERO),
        ],
    );
    assert_eq!(life.state(), S::Stopped);
}

#[test]
fn what_is_stuck_can_be_killed_again() {
    let mut life = running(Restart::Always);
    run(&mut life, &[Event::Kill, Event::Stuck("busy".into())]);
    assert_eq!(life.state(), S::Stuck);
    assert!(life.on(Event::Start).is_err());
    assert!(life.on(Event::Stop(1)).is_err());
    assert_eq!(
        run(&mut life, &[Event::Kill]),
        [Action::NoWake, Action::TakeApart]
    );
    run(&mut life, &[Event::Gone(LONG)]);
    assert_eq!(life.state(), S::Stopped);
}

#[test]
fn an_adopted_child_is_what_its_worker_says() {
    for (message, state) in [
        (FromWorker::Running, S::Running),
        (FromWorker::Paused, S::Paused),
    ] {
        let mut life = Life::adopted(Restart::Never, 4);
        run(&mut life, &[said(message)]);
        assert_eq!((life.state(), life.starts), (state, 4));
    }
    let mut life = Life::adopted(Restart::Never, 4);
    let actions = run(&mut life, &[said(FromWorker::Ready)]);
    assert_eq!(actions, [Action::Tell(ToWorker::Run)]);
}

#[test]
fn a_pause_that_another_daemon_asked_for_is_taken_note_of() {
    let mut life = Life::adopted(Restart::Never, 1);
    run(
        &mut life,
        &[said(FromWorker::Running), said(FromWorker::Paused)],
    );
    assert_eq!(life.state(), S::Paused);
    let actions = run(&mut life, &[Event::Resume]);
    assert_eq!(actions[..1], [Action::Tell(ToWorker::Resume)]);
}

#[test]
fn what_a_worker_says_of_its_end_is_short_and_harmless() {
    let mut life = Life::adopted(Restart::Never, 1);
    let text = format!("\x1b[2J{}", "x".repeat(60_000));
    run(&mut life, &[stopped(StopReason::Failed { text })]);
    let end = life.last_end.unwrap();
    assert!(
        end.starts_with("?[2Jxx") && end.len() == 1000,
        "{}",
        end.len()
    );
}

#[test]
fn late_news_change_nothing() {
    let late = [
        Event::Built,
        Event::BuildFailed("x".into()),
        Event::Time,
        Event::Gone(LONG),
        Event::Stuck("x".into()),
        Event::WorkerGone,
        said(FromWorker::Ready),
        said(FromWorker::Running),
        said(FromWorker::Paused),
        stopped(StopReason::Reset),
    ];
    for event in late {
        let mut life = life(Restart::Always);
        assert!(life.on(event).unwrap().is_empty());
        assert_eq!(life.state(), S::Stopped);
    }
}

#[test]
fn a_crash_that_its_kernel_reports_ends_it_only_where_that_was_asked_for() {
    let crashed = || {
        said(FromWorker::Crashed {
            parameters: [1, 2, 3, 4, 5],
            text: None,
        })
    };
    let mut goes_on = running(Restart::Always);
    assert_eq!(run(&mut goes_on, &[crashed()]), []);
    assert_eq!(goes_on.state(), S::Running);
    for (on_crash, state) in [(OnCrash::Stop, S::Stopped), (OnCrash::Restart, S::Waiting)] {
        for restart in [Restart::Never, Restart::Always] {
            let mut life = running(restart);
            life.on_crash = on_crash;
            let actions = run(&mut life, &[crashed()]);
            assert_eq!(actions[0], Action::Tell(ToWorker::Stop));
            run(
                &mut life,
                &[stopped(StopReason::Stopped), Event::Gone(LONG)],
            );
            assert_eq!(life.state(), state);
            let end = life.last_end.clone().unwrap();
            assert!(end.contains("reported a crash"), "{end}");
        }
        // Somebody's own wish is what counts.
        let mut life = running(Restart::Always);
        life.on_crash = on_crash;
        run(
            &mut life,
            &[
                crashed(),
                Event::Stop(10),
                stopped(StopReason::Stopped),
                Event::Gone(LONG),
            ],
        );
        assert_eq!(life.state(), S::Stopped);
    }
}

#[test]
fn one_that_waited_waits_again_under_another_daemon() {
    let text = "name = \"web\"\nmemory = \"2M\"\nkernel = \"/k\"\non_crash = \"stop\"\n";
    let mut life = Life::waiting(&Waiting {
        description: crate::description::Description::parse(text).unwrap(),
        starts: 3,
        crashes: crate::record::Crashes::default(),
        last_end: Some("its worker died".into()),
        early_ends: 3,
    });
    assert_eq!((life.state(), life.pause()), (S::Waiting, RESTART_MIN * 4));
    assert_eq!(life.on_crash, OnCrash::Stop);
    assert!(run(&mut life, &[Event::Time]).contains(&Action::Build));
    assert_eq!(life.starts, 4);
}
