/**
 * Definition files for CodeMirror: headers, sections, build arguments; bodies of sections as shell.
 *
 * Source of the words: the definition file format of Apptainer 1.4
 * (https://apptainer.org/docs/user/main/definition_files.html).
 */
import {
  LanguageSupport,
  StreamLanguage,
  StreamParser,
  StringStream
} from '@codemirror/language';

export const DEFINITION_MIME = 'text/x-apptainer-def';

/** Where the parser is: before the first section there are headers, afterwards the bodies of sections. */
interface IState {
  section: string;
  quote: string;
}

const HEADER =
  /^(bootstrap|from|stage|fingerprints|include|mirrorurl|updateurl|osversion|setopt|confurl|product|user|regcode|productpgp|registerurl|modules|otherurl\d+)(?=\s*:)/i;
const SECTION = /^%[A-Za-z]+/;
const SHELL_WORD =
  /^(?:if|then|elif|else|fi|for|in|do|done|while|until|case|esac|function|return|exit|export|set|cd)(?![\w-])/;
/** Sections whose lines are not shell. */
const PLAIN = new Set(['%files', '%labels', '%help', '%arguments', '%appfiles', '%applabels', '%apphelp']);

function readHeader(stream: StringStream): string | null {
  if (stream.sol() && stream.match(HEADER)) {
    return 'keyword';
  }
  stream.next();
  return null;
}

function readQuoted(stream: StringStream, state: IState): string {
  while (!stream.eol()) {
    const next = stream.next();
    if (next === '\\' && state.quote === '"') {
      stream.next();
    } else if (next === state.quote) {
      state.quote = '';
      break;
    }
  }
  return 'string';
}

function readShell(stream: StringStream, state: IState): string | null {
  if (stream.match(/^\$(?:\{[^}]*\}|\w+|[@*#?$!-])/)) {
    return 'variableName.special';
  }
  if (stream.match(/^['"]/)) {
    state.quote = stream.current();
    return readQuoted(stream, state);
  }
  if (stream.match(SHELL_WORD)) {
    return 'keyword';
  }
  // A whole word at a time, so that words inside of others are not found.
  if (!stream.match(/^[\w./-]+/)) {
    stream.next();
  }
  return null;
}

/** The parser, for tests and for the language below. */
export const definitionParser: StreamParser<IState> = {
  name: 'apptainer-definition',
  startState: () => ({ section: '', quote: '' }),
  copyState: state => ({ ...state }),
  languageData: { commentTokens: { line: '#' } },
  token: (stream, state) => {
    if (stream.sol()) {
      if (stream.match(SECTION)) {
        state.section = stream.current().toLowerCase();
        state.quote = '';
        return 'heading';
      }
      if (stream.match(/^bootstrap(?=\s*:)/i)) {
        // Another stage begins.
        state.section = '';
        state.quote = '';
        return 'keyword';
      }
    }
    if (stream.match(/^\{\{\s*[\w.-]+\s*\}\}/)) {
      return 'atom';
    }
    if (state.quote) {
      return readQuoted(stream, state);
    }
    if (stream.eatSpace()) {
      return null;
    }
    // A number sign inside of a word does not begin a comment.
    const before = stream.string.charAt(stream.pos - 1);
    if (stream.peek() === '#' && (stream.sol() || /\s/.test(before))) {
      stream.skipToEnd();
      return 'comment';
    }
    if (!state.section) {
      return readHeader(stream);
    }
    if (PLAIN.has(state.section)) {
      stream.match(/^[^\s{]+/) || stream.next();
      return null;
    }
    return readShell(stream, state);
  }
};

/** The language that the editor registry gets. */
export function definition(): LanguageSupport {
  return new LanguageSupport(StreamLanguage.define(definitionParser));
}
