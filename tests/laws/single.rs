//! Laws that few examples show: no default, no laundering, no altered token.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use remit::api;
use remit::domain::caller::Caller;
use remit::domain::chain;
use remit::domain::reason::{Denial, Reason};
use remit::domain::resource::Pattern;
use remit::engine::{Decision, DelegateRequest, Delegated, Delegation, Revocation, RevokeTarget};
use serde_json::{Map, Value};

use crate::histories::runtime;
use crate::words::Ask;
use crate::world::{FOREIGN_KEY, OWN_KEY, START, World, caller, claims, name_of, seal};

const EXAMPLE: &str = include_str!("../../examples/policy.json");

/// Says of a type whether it has a default: the inherent constant, where it exists, goes before the trait's.
struct Probe<T>(PhantomData<T>);

trait WithoutDefault {
    const HAS_DEFAULT: bool = false;
}

impl<T> WithoutDefault for Probe<T> {}

impl<T: Default> Probe<T> {
    const HAS_DEFAULT: bool = true;
}

const _: () = assert!(Probe::<String>::HAS_DEFAULT, "the probe sees a default where there is one");
const _: () = assert!(!Probe::<Decision>::HAS_DEFAULT);
const _: () = assert!(!Probe::<Caller>::HAS_DEFAULT);
const _: () = assert!(!Probe::<Delegation>::HAS_DEFAULT);
const _: () = assert!(!Probe::<Delegated>::HAS_DEFAULT);
const _: () = assert!(!Probe::<Denial>::HAS_DEFAULT);
const _: () = assert!(!Probe::<Reason>::HAS_DEFAULT);

#[test]
fn l1_the_zero_of_every_enum_is_no_answer() {
    assert_eq!(api::Decision::try_from(0), Ok(api::Decision::Unspecified));
    assert_eq!(api::Reason::try_from(0), Ok(api::Reason::Unspecified));
    assert_ne!(api::AuthorizeResponse::default().decision(), api::Decision::Allow);
    assert_eq!(Reason::from_name(api::Reason::Unspecified.as_str_name()), None);
    for proto in
        [include_str!("../../proto/remit/v1/types.proto"), include_str!("../../proto/remit/v1/decision_service.proto")]
    {
        let zeros: Vec<&str> = proto.lines().filter(|line| line.contains(" = 0;")).collect();
        assert!(zeros.iter().all(|line| line.trim().split(' ').next().unwrap().ends_with("_UNSPECIFIED")), "{zeros:?}");
    }
    let denial = Denial::new(Reason::TokenRequired, "");
    assert_ne!(denial.reason(), Reason::Allowed);
}

/// What a request may leave out.
#[derive(Clone, Copy, Debug)]
struct Stated(u8);

impl Stated {
    fn says(self, field: u8) -> bool {
        self.0 >> field & 1 == 1
    }
}

async fn delegate(
    world: &World,
    from: &str,
    to: &str,
    cap: &str,
    parent: Option<&str>,
    stated: Stated,
) -> Result<Delegated, Denial> {
    let wish = chain::Wish {
        to,
        capabilities: vec![cap.into()],
        resources: vec![Pattern::parse("prod/web").unwrap()],
        max_uses: stated.says(0).then_some(1),
        ttl_seconds: stated.says(1).then_some(60),
        max_depth: stated.says(2).then_some(2),
        delegatable: stated.says(3),
        audience: if stated.says(4) { vec!["svc-guard".into()] } else { vec![] },
        task: stated.says(5).then(|| "task-1".into()),
        on_behalf_of: None,
    };
    let request = DelegateRequest {
        wish,
        parent,
        request_id: "",
        deadline: world.clock.now().after(Duration::from_secs(1)),
        expires_by: None,
        exchange: None,
    };
    world.engine.delegate(&caller(from), &request).await.outcome
}

/// `task` is the caller's to name; everything else of the parent's must carry over.
#[test]
fn l12_whatever_is_left_out_nobody_starts_or_widens_a_chain() {
    let agents = ["agent-coordinator", "agent-deployer", "agent-analyst", "agent-writer", "agent-validator"];
    let capabilities = ["read_file", "kubectl_get", "query_database"];
    runtime().block_on(async {
        let world = World::new(EXAMPLE);
        let mut minted = BTreeSet::new();
        for stated in (0..64).map(Stated) {
            // Time for the rate limit to forget.
            world.clock.advance(Duration::from_secs(5));
            for (from, to) in agents.iter().flat_map(|from| agents.iter().map(move |to| (*from, *to))) {
                for cap in capabilities {
                    // Without a parent: the coordinator and nobody else.
                    if let Ok(root) = delegate(&world, from, to, cap, None, stated).await {
                        assert_eq!((from, &*root.chain[0], root.chain.len()), ("agent-coordinator", from, 2));
                    }
                }
            }
            let parents = [
                ("agent-deployer", "kubectl_get", 0b111_1111),
                ("agent-deployer", "kubectl_get", 0b1000),
                ("agent-analyst", "read_file", 0b1000),
            ];
            for (holder, held, claimed) in parents {
                let parent = delegate(&world, "agent-coordinator", holder, held, None, Stated(claimed)).await.unwrap();
                for (from, to) in agents.iter().flat_map(|from| agents.iter().map(move |to| (*from, *to))) {
                    for cap in capabilities {
                        let Ok(child) = delegate(&world, from, to, cap, Some(&parent.token), stated).await else {
                            continue;
                        };
                        minted.insert((from, to));
                        assert_eq!((from, cap, child.parent_left), (holder, held, Some(0)));
                        child_keeps(&parent, &child, to);
                    }
                }
            }
        }
        assert_eq!(minted, BTreeSet::from([("agent-deployer", "agent-validator")]));
    });
}

fn child_keeps(parent: &Delegated, child: &Delegated, to: &str) {
    let [above, below] = [&parent.token, &child.token].map(|token| claims(token));
    let chain: Vec<&str> = parent.chain.iter().map(AsRef::as_ref).chain([to]).collect();
    assert!(child.chain.iter().map(AsRef::as_ref).eq(chain));
    assert_eq!(below["par"], serde_json::json!([parent.id.to_string()]));
    assert_eq!(below["max_depth"], above["max_depth"]);
    assert!(child.expires_at <= parent.expires_at && child.max_uses <= parent.max_uses);
    assert!(above.get("aud").is_none() || below["aud"] == above["aud"]);
    assert!(above.get("task").is_none() || below["task"] == above["task"]);
}

/// Fifty tokens of all kinds.
async fn fifty(world: &World) -> Vec<String> {
    let mut tokens = Vec::new();
    for at in 0..50u8 {
        let stated = Stated(at.wrapping_mul(37));
        let to = if at % 2 == 0 { "agent-deployer" } else { "agent-analyst" };
        let cap = if at % 2 == 0 { "kubectl_get" } else { "read_file" };
        let root = delegate(world, "agent-coordinator", to, cap, None, Stated(stated.0 | 8)).await.unwrap();
        tokens.push(match at % 6 {
            0 => delegate(world, to, "agent-validator", cap, Some(&root.token), stated).await.unwrap().token,
            1 => {
                let exp = START + 60;
                seal(FOREIGN_KEY, &format!(r#"{{"iss":"agent-coordinator","sub":"{to}","cap":["{cap}"],"res":["prod/*"],"max_uses":1,"iat":{START},"exp":{exp},"delegatable":false}}"#))
            }
            _ => root.token,
        });
    }
    tokens
}

/// Who opens it is told what it says; an altered one is not opened.
fn is_refused(world: &World, token: &str) -> bool {
    let opened = world.engine.keyring().open(token, &mut Vec::new()).map(drop);
    opened.is_err_and(|denial| [Reason::TokenMalformed, Reason::TokenSealInvalid].contains(&denial.reason()))
}

#[test]
fn l2_every_flipped_bit_of_fifty_tokens_is_refused() {
    runtime().block_on(async {
        let world = World::new(EXAMPLE);
        let mut flips = 0u32;
        for token in fifty(&world).await {
            assert!(!is_refused(&world, &token));
            for (at, bit) in (0..token.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                let mut bytes = token.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                // What is no text any more doesn't get as far as this.
                let Ok(text) = String::from_utf8(bytes) else { continue };
                assert!(is_refused(&world, &text), "bit {bit} of byte {at}: {text}");
                flips += 1;
            }
        }
        assert!(flips > 100_000);
        println!("ASSURE {{\"what\": \"flips\", \"tokens\": 50, \"flips\": {flips}, \"not_refused\": 0}}");
    });
}

#[test]
fn l2_every_field_swapped_between_two_tokens_is_refused() {
    runtime().block_on(async {
        let world = World::new(EXAMPLE);
        let tokens = fifty(&world).await;
        let mut swaps = 0u32;
        for pair in tokens.windows(2) {
            let (one, other) = (claims(&pair[0]), claims(&pair[1]));
            let seals = pair.iter().map(|token| token.split_once('.').unwrap().1);
            let names = one.keys().flat_map(|to| other.keys().map(move |from| (to, from)));
            for ((to, from), seal) in names.flat_map(|names| seals.clone().map(move |seal| (names, seal))) {
                if one[to] == other[from] {
                    continue;
                }
                let mut mixed: Map<String, Value> = one.clone();
                mixed.insert(to.clone(), other[from].clone());
                let payload = URL_SAFE.encode(serde_json::to_string(&mixed).unwrap());
                assert!(is_refused(&world, &format!("{payload}.{seal}")), "{to} from the other's {from}");
                swaps += 1;
            }
            let [(one, seal), (other, other_seal)] = [0, 1].map(|at: usize| pair[at].split_once('.').unwrap());
            assert!(
                is_refused(&world, &format!("{one}.{other_seal}")) && is_refused(&world, &format!("{other}.{seal}"))
            );
        }
        assert!(swaps > 5_000, "{swaps}");
        println!("ASSURE {{\"what\": \"swaps\", \"pairs\": 49, \"swaps\": {swaps}, \"not_refused\": 0}}");
    });
}

/// A token of another issuer: from the coordinator to the deployer, made at this second, with these claims more.
fn foreign(iat: u64, more: &str) -> String {
    format!(
        r#"{{"iss":"agent-coordinator","sub":"agent-deployer","cap":["kubectl_get"],"res":["prod/*"],"max_uses":1,"iat":{iat},"exp":{},"delegatable":false{more}}}"#,
        iat + 60
    )
}

/// Only a key that is marked as shared makes tokens without an id.
#[test]
fn l12_a_token_of_another_issuer_counts_under_a_shared_key_only() {
    let world = World::new(EXAMPLE);
    let opens = |key| world.engine.keyring().open(&seal(key, &foreign(START, "")), &mut Vec::new()).is_ok();
    assert!(opens(FOREIGN_KEY) && !opens(OWN_KEY) && !opens(b"0123456789abcdef0123456789abcdef none"));
}

/// Who shares a key can say of its tokens neither a longer chain nor an id of ours.
#[test]
fn l12_another_issuer_can_not_write_itself_into_a_chain() {
    runtime().block_on(async {
        let world = World::new(EXAMPLE);
        let ours =
            delegate(&world, "agent-coordinator", "agent-deployer", "kubectl_get", None, Stated(8)).await.unwrap();
        world.clock.advance(Duration::from_secs(2));
        let id = ours.id;
        for more in [
            r#","chain":["agent-coordinator","agent-analyst","agent-deployer"]"#.to_owned(),
            r#","chain":["agent-analyst","agent-deployer"]"#.to_owned(),
            format!(r#","par":["{id}"]"#),
            format!(r#","jti":"{id}""#),
            format!(r#","jti":"{id}","root":"{id}""#),
            format!(r#","jti":"{}","par":["{id}"],"root":"{id}""#, "ab".repeat(16)),
            r#","jti":"abababababababababababababababab""#.to_owned(),
            r#","unheard":"of""#.to_owned(),
            r#","max_uses":5"#.to_owned(),
        ] {
            // Later than the fence, so that nothing but what is added can be wrong.
            let payload = foreign(START + 1, &more);
            let token = seal(FOREIGN_KEY, &payload);
            assert!(gets(&world, &token).await.is_err(), "{more}");
        }
        let plain = foreign(START + 1, "");
        assert_eq!(gets(&world, &seal(FOREIGN_KEY, &plain)).await, Ok(()));
        assert_eq!(gets(&world, &ours.token).await, Ok(()));
    });
}

async fn gets(world: &World, token: &str) -> Result<(), Reason> {
    let ask = Ask {
        caller: "agent-deployer".to_owned(),
        agent: None,
        destination: None,
        wanted: Some(("kubectl_get".to_owned(), "prod/web".to_owned())),
        call: None,
        token: None,
        dry_run: false,
        late: false,
    };
    world.authorize(&ask, Some(token)).await.outcome.map_err(|denial| denial.reason())
}

/// Their tokens are not numbered: what was made up to the second of a revocation ends with it.
#[test]
fn l7_another_issuers_token_of_the_revocations_own_second_is_dead() {
    runtime().block_on(async {
        let world = World::new(EXAMPLE);
        world.clock.advance(Duration::from_millis(2_500));
        let [before, same] = [1, 2].map(|second| seal(FOREIGN_KEY, &foreign(START + second, "")));
        let target = RevokeTarget::Agent(name_of("agent-deployer"));
        world.engine.revoke(&caller("agent-deployer"), &Revocation { target, note: "" }).await.unwrap();
        for token in [&before, &same] {
            assert_eq!(gets(&world, token).await, Err(Reason::TokenRevoked));
        }
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(gets(&world, &seal(FOREIGN_KEY, &foreign(START + 3, ""))).await, Ok(()));
    });
}

/// A call is decided by the communication rules alone: a token that is shown with one, by whomever, is not spent.
#[test]
fn l2_a_call_between_agents_spends_nobodys_token() {
    let policy = EXAMPLE.replacen('{', r#"{"communication_rules": [{"from": "*", "to": "*"}],"#, 1);
    runtime().block_on(async {
        let world = World::new(&policy);
        let token =
            delegate(&world, "agent-coordinator", "agent-deployer", "kubectl_get", None, Stated(0)).await.unwrap();
        let call = Ask {
            caller: "agent-writer".to_owned(),
            agent: None,
            destination: None,
            wanted: None,
            call: Some(("GET".to_owned(), "/x".to_owned())),
            token: None,
            dry_run: false,
            late: false,
        };
        let _ = world.authorize(&call, Some(&token.token)).await;
        assert_eq!(world.left(token.id), Some(1));
    });
}
