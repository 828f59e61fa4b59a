import type { Finding } from './tidy-syntax.ts'

/** Words that this project does not use, each with the term that it uses instead: ARCHITECTURE.md, Glossary. */
const RETIRED: readonly (readonly [RegExp, string])[] = [
  [/\banew\b/i, 'again'],
  [/\bask(s|ed|ing)?[ -]?again\b/i, 'resend'],
  [/\bcomes? again\b/i, 'is redelivered, is repeated'],
  [/\bfor ever\b/i, 'forever'],
  [/\b(gives?|gave|given|giving) back\b/i, 'refund, release'],
  [/\bhast(y|ily)\b/i, 'asynchronous'],
  [/\bhurr(y|ies|ied)\b/i, 'make due'],
  [/\bin one piece\b/i, 'pipelined'],
  [/\blook(s|ed|ing)? for work\b/i, 'poll'],
  [/\blookedTo\b/, 'polled'],
  [/\bmeanwhile\b/i, 'during, and the thing that lasts'],
  [/\bmend(s|ed|ing)?\b/i, 'fix, repair'],
  [/\bon (its|their) way\b/i, 'in flight'],
  [/\bset(s|ting)? aside\b/i, 'dead-letter'],
  [/\bthat which\b/i, 'a noun'],
  [/\btold of\b/i, 'notified of'],
  [/\bturn(s|ed|ing)? away\b/i, 'reject'],
  [/\bunder way\b/i, 'in flight'],
  [/\bwho ?ever\b/i, 'the caller, the client'],
]

export function retiredWords(text: string): Finding[] {
  return text.split('\n').flatMap((line, index) =>
    RETIRED.filter(([word]) => word.test(line)).map(([word, term]) => ({
      line: index + 1,
      message: `says "${word.exec(line)![0]}": say ${term}`,
    })),
  )
}
