use super::*;

#[test]
fn every_state_but_the_closed_one_comes_to_closure_and_none_leads_out_of_it() {
    for state in State::ALL {
        assert!(state.may_reach(&[State::Closed]), "{state}");
        assert_eq!(State::Closed.may_reach(&[state]), state == State::Closed, "{state}");
    }
}

#[test]
fn no_way_leads_back_over_a_dismissal_a_withdrawal_or_the_end_of_the_execution() {
    for state in [State::Dismissed, State::Withdrawn, State::SubscriberRecovery, State::Executed, State::PostRecovery] {
        assert!(!state.may_reach(places(Meaning::Execute)), "{state}");
        assert!(!state.may_reach(places(Meaning::SetRecovery)), "{state}");
    }
    assert!(State::DeterminedNotToExecute.may_reach(places(Meaning::Execute)), "the PMA may determine anew");
    assert!(!State::Assessed.may_reach(places(Meaning::Dismiss)));
}

#[test]
fn every_step_but_the_notification_has_a_place_that_an_incident_reaches() {
    for step in Meaning::ALL {
        let places = places(step);
        assert_eq!(places.is_empty(), step == Meaning::Notify, "{step}");
        assert!(places.is_empty() || State::Reported.may_reach(places), "{step}");
        assert!(!places.contains(&State::Closed), "{step}");
    }
}

#[test]
fn a_name_is_read_as_the_step_that_it_names_and_others_are_unknown() {
    for step in Meaning::ALL {
        assert_eq!(Meaning::of(&step.id()), Some(step));
    }
    assert_eq!(Meaning::of(&"replace-spent-material".parse().unwrap()), None);
}
