"""Have espeak-ng read what is said in the demonstration: `python -m scripts.demo_voices`."""

from __future__ import annotations

import shutil
import sys

from ari_app.audio.g711 import pcm_to_ulaw
from lab.demo import scene
from lab.demo.voice import AGENT_VOICE, CALLER_VOICE, FOLDER, file_name, spoken
from lab.practice_agent.voice import ESPEAK, EspeakVoice


def main() -> None:
    """Write each sentence into its file."""
    program = shutil.which(ESPEAK)
    if program is None:
        sys.exit("There is no espeak-ng here: apt install espeak-ng.")
    FOLDER.mkdir(exist_ok=True)
    for name, texts in ((AGENT_VOICE, scene.agent_texts()), (CALLER_VOICE, scene.caller_texts())):
        voice = EspeakVoice(program, voice=name)
        for text in texts:
            (FOLDER / file_name(text)).write_bytes(pcm_to_ulaw(spoken(voice, text)))


if __name__ == "__main__":
    main()
