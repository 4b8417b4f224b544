Feature: Submit, stream, cancel
  As an ML engineer I submit a prompt, read its tokens as they are decoded,
  and stop what I no longer need.

  Scenario: A prompt comes back as a stream of tokens
    Given a daemon with two llama.cpp replicas
    When I submit "Write one line about the sea." with seed 7
    And I read its stream to the end
    Then the stream was "started", then tokens, then "end"
    And every token and the end carry an id that grows with the output
    And the task is "finished" and its output is what was streamed
    And the daemon counted the tokens of the task

  Scenario: The same seed gives the same text, on whichever replica
    Given a daemon with two llama.cpp replicas
    When I submit "Write one line about the sea." with seed 11 eight times at once
    Then all texts are equal, byte for byte
    And another seed gives another text

  Scenario: A stream can be read again after its end
    Given a daemon with two llama.cpp replicas
    When I submit "Write one line about the sea." with seed 7
    And I read its stream to the end
    And I read its stream a second time
    Then both readings are the same

  Scenario: A task that decodes is canceled
    Given a daemon with a slow llama.cpp replica
    When I submit "Tell me everything." with room for 900 tokens
    And I cancel it after its third token
    Then its stream ends with "CANCELED" and no token follows
    And the task is "canceled"
    And the replica is free for the next task within a second

  Scenario: A task that waits is canceled
    Given a daemon with a slow llama.cpp replica
    When the replica is busy with another task
    And I submit "Tell me everything." with room for 900 tokens
    And I cancel it while it waits
    Then its stream ends with "CANCELED" and no token follows
    And the task is "canceled"
