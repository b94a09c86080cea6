use super::*;

#[test]
fn scratch_places() {
    for text in [
        "agent == 1",
        "'ä' == 'b' && agent == 1",
        "chain.exists(x, x == 1)",
        "foo.bar > 1",
        "subject.foo == 'a'",
        "agent.matches('a')",
        "size(1)",
        "agent &&",
        "agent == 'x",
        "1 + 2",
        "context.a.filter(x, x)",
        "f(",
        "a\n&& ++",
        "agent.startsWith(1)",
        "!agent",
        "-agent",
        "(agent == 'a'",
        "agent ? 1 : 2",
        "chain[0] == 3",
        "context.x ? 1 : 2",
    ] {
        match Expression::compile(text) {
            Ok(_) => println!("ok  {text}"),
            Err(e) => println!("{text:?} {:?} {:?} {}  {:?}", e.at, text.get(e.at.clone()), e.message, e.help),
        }
    }
}

#[test]
fn scratch_stack() {
    for unit in [
        "1+",
        "1*",
        "!",
        "-",
        "a.b.",
        "(",
        "[",
        "1<",
        "true?1:",
        "true&&",
        "f(",
        "{1:",
        "a[",
        "has(",
        "[1,",
        "\"a\"+",
        "chain.all(a,",
        "a.?",
        "x{a:",
    ] {
        let text = unit.repeat(2048 / unit.len()) + "1";
        let r = Expression::compile(text.get(..2048.min(text.len())).unwrap());
        println!("{unit} {:?}", r.err().map(|e| e.message));
    }
}
