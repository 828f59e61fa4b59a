/** Everything that a process does to the world outside its memory. */
export type StepKind =
  | 'statement'
  | 'commit'
  | 'signal'
  | 'subscribe'
  | 'send'
  | 'take'
  | 'offsets'
  | 'ping'
  | 'call'
  | 'letter'

export interface Step {
  readonly kind: StepKind
  /** What it is, the same in every run: the beginning of a statement, a topic, a path. */
  readonly label: string
}

/**
 * What goes wrong at a step. A crash ends the process before or after the step took effect. A process
 * that `freezes` is stopped between the effect of the step and its answer, and runs on later. A step
 * that `fails` takes no effect; one that is `unanswered` does, and the process is told that it
 * failed. Where it matters to whoever asked, the fault is said to be the rival of a transaction.
 */
export type Mishap = 'crash before' | 'crash after' | 'freezes' | 'fails' | 'loses' | 'unanswered'

/** What may go wrong with a call, a message or a signal, besides what goes wrong at steps. */
export type Trouble =
  | 'call lost'
  | 'answer lost'
  | 'call slow'
  | 'answer slow'
  | 'call twice'
  | 'message delayed'
  | 'message doubled'
  | 'send in part'
  | 'signal lost'
  | 'step slow'
