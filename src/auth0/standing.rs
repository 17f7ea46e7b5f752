//! The status of the Action in the tenant, compared with the code that it should run. Pure.

use super::actions::{Action, BOUND_MAX, Bound, Place};
use super::shipped::{ShippedAction, is_same_code};

/// Our Action, and the flow in which it should be first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The name under which it is deployed.
    pub name: String,
    /// The denying Action, if found.
    pub action: Option<Action>,
    /// The flow, in order.
    pub flow: Vec<Bound>,
    /// Whether the draft is our code.
    pub is_written: bool,
    /// Whether the deployed version is our code.
    pub is_deployed: bool,
    /// Its position in the flow, from 0.
    pub position: Option<usize>,
}

/// A condition that must hold for the Action to deny logins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Its short name.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// What was found.
    pub found: String,
    /// The remedy; empty if it holds.
    pub remedy: &'static str,
}

/// A step of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Create it.
    Create,
    /// Write the draft.
    Update,
    /// Deploy the draft.
    Deploy,
    /// Bind it first in the flow, and keep all others in their order.
    Bind,
}

const DEPLOY: &str = "okta-auth0-sync action deploy";

impl Standing {
    /// Compares the tenant with the shipped Action. Ours is the one in the flow that runs its code, whatever its name
    /// (another tool may have deployed it), or else the one that has its name.
    pub fn new(actions: Vec<Action>, flow: Vec<Bound>, shipped: &ShippedAction) -> Self {
        let code = shipped.code.as_str();
        let position = |action: &Action| flow.iter().position(|bound| bound.action_id == action.id);
        let runs = |action: &Action| action.deployed_code.as_deref().is_some_and(|runs| is_same_code(runs, code));
        let ours = actions
            .iter()
            .filter(|action| runs(action))
            .filter_map(|action| Some((position(action)?, action)))
            .min_by_key(|(position, _)| *position)
            .map(|(_, action)| action)
            .or_else(|| actions.iter().find(|action| action.name == shipped.name));
        Self {
            name: shipped.name.clone(),
            is_written: ours.is_some_and(|action| is_same_code(&action.code, code)),
            is_deployed: ours.is_some_and(runs),
            position: ours.and_then(position),
            action: ours.cloned(),
            flow,
        }
    }

    /// Whether our code runs, before all other Actions.
    pub fn is_verified(&self) -> bool {
        self.is_deployed && self.position == Some(0)
    }

    /// Whether any version of the Action runs.
    pub fn is_in_force(&self) -> bool {
        self.position.is_some() && self.action.as_ref().is_some_and(|action| action.deployed_code.is_some())
    }

    /// The steps to put it in force, in order. Empty if it is.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.action.is_none() {
            steps.push(Step::Create);
        } else if !self.is_written {
            steps.push(Step::Update);
        }
        let pending = self.action.as_ref().is_none_or(|action| !action.all_changes_deployed);
        if !steps.is_empty() || !self.is_deployed || pending {
            steps.push(Step::Deploy);
        }
        if self.position != Some(0) {
            steps.push(Step::Bind);
        }
        steps
    }

    /// Whether the flow has no room for it.
    pub fn is_full(&self) -> bool {
        self.position.is_none() && self.flow.len() >= BOUND_MAX
    }

    /// The flow with `action` first, and the other Actions in their order.
    pub fn flow_with_first(flow: &[Bound], action: &Action) -> Vec<Place> {
        let (ours, others): (Vec<&Bound>, Vec<&Bound>) = flow.iter().partition(|bound| bound.action_id == action.id);
        let first = match ours.first() {
            Some(bound) => Place::Kept((*bound).clone()),
            None => Place::New { action_id: action.id.clone(), display_name: action.name.clone() },
        };
        std::iter::once(first).chain(others.into_iter().cloned().map(Place::Kept)).collect()
    }

    /// All conditions, and whether they hold.
    pub fn conditions(&self) -> Vec<Condition> {
        let yes = |name, holds: bool, found: String, remedy| Condition {
            name,
            holds,
            found,
            remedy: if holds { "" } else { remedy },
        };
        let Some(action) = &self.action else {
            let found = format!("no Action runs our code in the post-login flow, and none is called {}", self.name);
            return vec![yes("present", false, found, DEPLOY)];
        };
        let draft = if self.is_written {
            "the draft is the code of this version and configuration".to_owned()
        } else {
            "the draft differs from what `okta-auth0-sync action show` prints".to_owned()
        };
        let deployed = match (&action.deployed_code, self.is_deployed, action.all_changes_deployed) {
            (None, _, _) => "was never deployed".to_owned(),
            (Some(_), false, _) => {
                "the code that runs differs from what `okta-auth0-sync action show` prints".to_owned()
            }
            (Some(_), true, false) => "the code runs; the draft has changes that are not deployed".to_owned(),
            (Some(_), true, true) => "the code runs".to_owned(),
        };
        let bound = match self.position {
            None => format!("not among the {} Actions of the post-login flow: it denies no login", self.flow.len()),
            Some(at) => format!("number {} of {} in the post-login flow", at + 1, self.flow.len()),
        };
        let first = match self.position {
            Some(0) => "before all others".to_owned(),
            None => "not in the flow".to_owned(),
            _ => "an earlier Action could redirect the user or enrich their token".to_owned(),
        };
        vec![
            yes("present", true, format!("{} ({})", action.name, action.id), DEPLOY),
            yes("code", self.is_written, draft, DEPLOY),
            yes("deployed", self.is_deployed && action.all_changes_deployed, deployed, DEPLOY),
            yes("bound", self.position.is_some(), bound, DEPLOY),
            yes("first", self.position == Some(0), first, DEPLOY),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::actions::Build;
    use super::super::shipped::ACTION_NAME;
    use super::*;

    fn shipped() -> ShippedAction {
        ShippedAction { name: ACTION_NAME.to_owned(), code: "c".to_owned() }
    }

    fn action(id: &str, name: &str, code: &str, deployed: Option<&str>) -> Action {
        Action {
            id: id.to_owned(),
            name: name.to_owned(),
            code: code.to_owned(),
            runtime: Some("node22".to_owned()),
            trigger_version: Some("v3".to_owned()),
            build: Build::Built,
            all_changes_deployed: deployed == Some(code),
            deployed_code: deployed.map(str::to_owned),
        }
    }

    fn bound(action: &str) -> Bound {
        Bound { binding_id: format!("b-{action}"), display_name: action.to_owned(), action_id: action.to_owned() }
    }

    fn failing(standing: &Standing) -> Vec<&'static str> {
        standing.conditions().into_iter().filter(|one| !one.holds).map(|one| one.name).collect()
    }

    #[test]
    fn each_defect_has_its_steps() {
        let ours = |code, deployed| action("a", ACTION_NAME, code, deployed);
        let other = action("x", "other", "y", Some("y"));
        type Case = (Vec<Action>, Vec<Bound>, &'static [Step], &'static [&'static str]);
        let cases: [Case; 8] = [
            (vec![], vec![], &[Step::Create, Step::Deploy, Step::Bind], &["present"]),
            (vec![ours("c", Some("c"))], vec![bound("a")], &[], &[]),
            (vec![ours("c", Some("c"))], vec![], &[Step::Bind], &["bound", "first"]),
            (vec![other.clone(), ours("c", Some("c"))], vec![bound("x"), bound("a")], &[Step::Bind], &["first"]),
            (vec![ours("d", Some("d"))], vec![bound("a")], &[Step::Update, Step::Deploy], &["code", "deployed"]),
            (vec![ours("d", Some("c"))], vec![bound("a")], &[Step::Update, Step::Deploy], &["code", "deployed"]),
            (vec![ours("c", Some("d"))], vec![bound("a")], &[Step::Deploy], &["deployed"]),
            (vec![ours("c", None)], vec![], &[Step::Deploy, Step::Bind], &["deployed", "bound", "first"]),
        ];
        for (actions, flow, steps, wrong) in cases {
            let standing = Standing::new(actions, flow, &shipped());
            assert_eq!(standing.steps(), steps, "{standing:?}");
            assert_eq!(failing(&standing), wrong, "{standing:?}");
            assert!(!steps.is_empty() || standing.is_verified());
        }
    }

    #[test]
    fn the_same_code_under_another_name_is_ours() {
        let by_others = action("t", "terraform-made", "c", Some("c"));
        let leftover = action("a", ACTION_NAME, "old", None);
        let standing = Standing::new(vec![leftover.clone(), by_others.clone()], vec![bound("t")], &shipped());
        assert!(standing.is_verified(), "{standing:?}");
        let standing = Standing::new(vec![leftover, by_others], vec![], &shipped());
        assert_eq!(standing.action.unwrap().name, ACTION_NAME, "what is not bound counts by its name");
    }

    #[test]
    fn other_actions_keep_their_order() {
        let ours = action("a", ACTION_NAME, "c", Some("c"));
        let flow = [bound("x"), bound("y"), bound("x2")];
        let places = Standing::flow_with_first(&flow, &ours);
        let kept: Vec<Place> = flow.iter().cloned().map(Place::Kept).collect();
        assert_eq!(places[0], Place::New { action_id: "a".to_owned(), display_name: ACTION_NAME.to_owned() });
        assert_eq!(places[1..], kept);
        let places = Standing::flow_with_first(&[bound("x"), bound("a"), bound("y")], &ours);
        assert_eq!(places, [bound("a"), bound("x"), bound("y")].map(Place::Kept));
    }

    #[test]
    fn full_flow_takes_only_a_bound_action() {
        let ours = action("a", ACTION_NAME, "c", Some("c"));
        let mut flow: Vec<Bound> = (0..BOUND_MAX).map(|n| bound(&format!("x{n}"))).collect();
        assert!(Standing::new(vec![ours.clone()], flow.clone(), &shipped()).is_full());
        flow[7] = bound("a");
        assert!(!Standing::new(vec![ours], flow, &shipped()).is_full());
    }
}
