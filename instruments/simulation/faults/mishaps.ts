/** The kinds of operations of a process on the world outside its memory. */
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
  /** What the step does, the same in every run: verbs and tables of a statement, a topic, a consumer group. */
  readonly label: string
}

/**
 * What can go wrong at a step. A crash ends the process before or after the step takes effect. With `freezes`, the
 * process is frozen after the step has taken effect and before it sees the result. With `fails`, the step has no
 * effect and the process gets an error. With `loses`, it has no effect either, and the error is a serialization
 * failure. With `unanswered`, the step takes effect but the process gets an error.
 */
export type Mishap = 'crash before' | 'crash after' | 'freezes' | 'fails' | 'loses' | 'unanswered'

/**
 * What can go wrong with a call, a message or a notification between processes, in addition to mishaps at steps.
 */
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
