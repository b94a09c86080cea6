//! Tokens byte for byte, for whoever writes another issuer or validator: `tests/vectors/*.json`.
//!
//! The files are made by `tests/vectors/make.py`, which uses nothing of Remit's. Beside them run Wycheproof's
//! vectors of HMAC-SHA-256, where they are at hand.

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE;
    use remit::domain::reason::{Denial, Reason};
    use remit::domain::time::Timestamp;
    use remit::keyring::{Key, Keyring};
    use serde::Deserialize;

    /// Fewer than these would be a sign that files are not found.
    const VECTORS: usize = 150;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct VectorFile {
        about: String,
        vectors: Vec<Vector>,
    }

    /// A token, and what becomes of it before policy and ledger are asked.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vector {
        name: String,
        keys: Vec<VectorKey>,
        /// Seconds since the epoch.
        now: u64,
        /// `token.max_ttl_seconds` of the policy.
        max_ttl_seconds: u64,
        /// What the token says, or for another text than the payload's the payload it was made from.
        payload: Option<String>,
        payload_hex: Option<String>,
        token: String,
        verdict: Verdict,
        reason: String,
        note: String,
        /// Of a token that is accepted.
        id: Option<String>,
        chain: Option<Vec<String>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct VectorKey {
        hex: String,
        foreign: bool,
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Verdict {
        Accept,
        Refuse,
    }

    /// What is compared of a token that opened in time.
    struct Opened {
        id: String,
        chain: Vec<String>,
    }

    #[test]
    fn every_vector_has_its_verdict() {
        let (mut count, mut wrong) = (0_usize, Vec::new());
        for path in vector_files() {
            let text = std::fs::read_to_string(&path).unwrap();
            let file: VectorFile = serde_json::from_str(&text).unwrap();
            assert!(!file.about.is_empty() && !file.vectors.is_empty(), "{}", path.display());
            count = count.saturating_add(file.vectors.len());
            wrong.extend(file.vectors.iter().filter_map(|vector| {
                let what = difference(vector)?;
                Some(format!("{}: {}: {what} {}", path.display(), vector.name, vector.note))
            }));
        }
        assert!(wrong.is_empty(), "{} of {count} vectors differ\n{}\n", wrong.len(), wrong.join("\n"));
        assert!(count >= VECTORS, "only {count} vectors were found");
    }

    fn difference(vector: &Vector) -> Option<String> {
        let wanted = Reason::from_name(&vector.reason).expect("a vector's reason is one of the list");
        assert_eq!(vector.verdict == Verdict::Accept, wanted == Reason::Allowed, "{}", vector.name);
        assert!(vector.payload.is_some() != vector.payload_hex.is_some(), "{}", vector.name);
        if wanted == Reason::Allowed && URL_SAFE.decode(vector.token.split('.').next()?).ok() != payload(vector) {
            return Some("its token has another payload".to_owned());
        }
        match opened(vector) {
            Ok(opened) if wanted == Reason::Allowed => {
                let is_as_wanted =
                    Some(&opened.id) == vector.id.as_ref() && Some(&opened.chain) == vector.chain.as_ref();
                (!is_as_wanted).then(|| format!("found the id {} and the chain {:?}", opened.id, opened.chain))
            }
            Ok(_) => Some(format!("wanted {wanted}, and it was accepted")),
            Err(denial) if denial.reason() == wanted => None,
            Err(denial) => Some(format!("wanted {wanted}, found {}: {}", denial.reason(), denial.message())),
        }
    }

    fn payload(vector: &Vector) -> Option<Vec<u8>> {
        let text = vector.payload.as_ref().map(|text| text.clone().into_bytes());
        text.or_else(|| vector.payload_hex.as_deref().map(bytes))
    }

    fn opened(vector: &Vector) -> Result<Opened, Denial> {
        let key = |key: &VectorKey| Key::new(&bytes(&key.hex), key.foreign).unwrap();
        let keyring = Keyring::new(vector.keys.iter().map(key).collect()).unwrap();
        let mut buffer = Vec::new();
        let token = keyring.open(&vector.token, &mut buffer)?;
        token.claims().check_times(Timestamp::from_seconds(vector.now), vector.max_ttl_seconds)?;
        Ok(Opened { id: token.id().to_string(), chain: token.claims().chain.iter().map(ToString::to_string).collect() })
    }

    fn vector_files() -> Vec<PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        files
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(hex.get(at..at.saturating_add(2)).unwrap(), 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    /// The parts of Wycheproof's file that are read.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wycheproof {
        test_groups: Vec<Group>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        tag_size: usize,
        tests: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Case {
        tc_id: usize,
        key: String,
        msg: String,
        tag: String,
        result: String,
    }

    /// A message and its tag make a token's text. Its seal is good if what is wrong with the token is what it
    /// says, for no message of the file is a token's payload.
    #[test]
    fn seals_are_hmac_sha_256_by_wycheproof() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/vectors/wycheproof/hmac_sha256_test.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is not there", path.display());
            println!("skipped: ../shared/vectors is not there");
            return;
        };
        let file: Wycheproof = serde_json::from_str(&text).unwrap();
        let whole = file.test_groups.iter().filter(|group| group.tag_size == 256).flat_map(|group| &group.tests);
        let (mut good, mut bad) = (0_usize, 0_usize);
        for case in whole {
            // A key of ours has at least 32 bytes, and a payload at least one.
            let Some(key) = Key::new(&bytes(&case.key), true).filter(|_| !case.msg.is_empty()) else { continue };
            let is_good = is_sealed(key, case);
            assert_eq!(is_good, case.result == "valid", "case {}", case.tc_id);
            let counted = if is_good { &mut good } else { &mut bad };
            *counted = counted.saturating_add(1);
        }
        assert!(good >= 20 && bad >= 20, "only {good} good and {bad} bad seals were tried");
        println!(
            "ASSURE {{\"what\": \"Wycheproof\", \"file\": \"hmac_sha256_test.json\", \"good\": {good}, \"bad\": {bad}}}"
        );
    }

    fn is_sealed(key: Key, case: &Case) -> bool {
        let token = format!("{}.{}", URL_SAFE.encode(bytes(&case.msg)), case.tag);
        let keyring = Keyring::new(vec![key]).unwrap();
        let mut buffer = Vec::new();
        let refused = keyring.open(&token, &mut buffer).err().expect("no message of the file is a token's payload");
        let is_about_payload = ["the token can't be read", "its payload is not UTF-8"]
            .iter()
            .any(|beginning| refused.message().starts_with(beginning));
        match (refused.reason(), is_about_payload) {
            (Reason::TokenMalformed, true) => true,
            (Reason::TokenSealInvalid, false) => false,
            other => panic!("case {}: {other:?}: {}", case.tc_id, refused.message()),
        }
    }
}
