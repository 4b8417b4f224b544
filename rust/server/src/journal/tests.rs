use super::*;

fn journal() -> (Journal, std::path::PathBuf) {
    let mut name = [0u8; 8];
    getrandom::fill(&mut name).unwrap();
    let path = std::env::temp_dir().join(format!("orchqueue-journal-{}.db", hex::encode(name)));
    (
        Journal::open(
            &path,
            Retention {
                hours: 24.0,
                max_mb: 1024,
            },
        )
        .unwrap(),
        path,
    )
}

fn record(id: u8, kind: Kind, at_ms: u64) -> Record {
    Record {
        key: Key {
            tenant: "default".into(),
            id: [id; 16],
        },
        kind,
        at_ms,
        data: format!("{{\"n\":{id}}}"),
    }
}

async fn durably(journal: &Journal, record: Record) {
    journal.append(record);
    journal.barrier().await.unwrap();
}

#[tokio::test]
async fn an_admitted_task_is_open_until_it_ends_and_survives_reopening() {
    let (journal, path) = journal();
    durably(&journal, record(1, Kind::Admitted, 5)).await;
    durably(&journal, record(2, Kind::Admitted, 6)).await;
    durably(&journal, record(2, Kind::Ended, 7)).await;
    journal.close();
    let again = Journal::open(
        &path,
        Retention {
            hours: 24.0,
            max_mb: 1024,
        },
    )
    .unwrap();
    let open = again.open_tasks().unwrap();
    assert_eq!(
        open.iter().map(|r| r.record.key.id[0]).collect::<Vec<_>>(),
        [1]
    );
    let (_, ended) = again.task(&record(2, Kind::Ended, 0).key).unwrap().unwrap();
    assert_eq!(ended.unwrap().record.at_ms, 7);
    again.close();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_task_within_one_commit_never_opens() {
    let (journal, path) = journal();
    journal.append(record(3, Kind::Admitted, 1));
    journal.append(record(3, Kind::Started, 1));
    journal.append(record(3, Kind::Ended, 2));
    journal.barrier().await.unwrap();
    assert!(journal.open_tasks().unwrap().is_empty());
    assert!(
        journal
            .task(&record(3, Kind::Ended, 0).key)
            .unwrap()
            .unwrap()
            .1
            .is_some()
    );
    journal.close();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn a_readmitted_task_is_open_again() {
    let (journal, path) = journal();
    for kind in [Kind::Admitted, Kind::Ended, Kind::Admitted] {
        durably(&journal, record(4, kind, 1)).await;
    }
    assert_eq!(journal.open_tasks().unwrap().len(), 1);
    let (_, ended) = journal
        .task(&record(4, Kind::Ended, 0).key)
        .unwrap()
        .unwrap();
    assert!(ended.is_none());
    journal.close();
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn trimming_spares_what_is_open_or_not_folded() {
    let (journal, path) = journal();
    for (id, kind) in [
        (1, Kind::Admitted),
        (2, Kind::Admitted),
        (2, Kind::Ended),
        (3, Kind::Admitted),
    ] {
        durably(&journal, record(id, kind, 1)).await;
    }
    let day = 25 * 3_600_000;
    let third = journal.read(0, 10).unwrap()[2].seq;
    let journal = std::sync::Arc::new(journal);
    let trimmer = std::sync::Arc::clone(&journal);
    let dropped = tokio::task::spawn_blocking(move || trimmer.trim(third, day))
        .await
        .unwrap();
    assert_eq!(dropped, 2);
    assert_eq!(journal.open_tasks().unwrap().len(), 2);
    journal.close();
    std::fs::remove_file(path).unwrap();
}
