"""What a camera sees, said in a terminal: a line whenever the decision changes, and how old the picture was.

python camera_demo.py solar-w8a8.tflite v4l2:/dev/video0
python camera_demo.py solar-w8a8.tflite picamera2: --window     # with a picture, where OpenCV can open windows
"""

from __future__ import annotations

import argparse
import sys

from edgeclf_device import Classifier, EdgeclfError, open_source
from edgeclf_device.decisions import MajorityVote, Rule
from edgeclf_device.streaming import Event, stream


def main() -> int:
    """Follow the camera until Ctrl-C, the end of a video, or q in the window."""
    parser = argparse.ArgumentParser(description="Classify a camera's frames.")
    parser.add_argument("artifact", help="a .tflite or .onnx of edgeclf, or a bundle")
    parser.add_argument("source", help="v4l2:/dev/video0, picamera2:, csi:0, rtsp://…, a video, a folder, synthetic:")
    parser.add_argument("--window", action="store_true", help="show the frames; needs an OpenCV that is not headless")
    options = parser.parse_args()
    rule = Rule(window=MajorityVote(frames=5))  # one odd frame decides nothing
    try:
        with Classifier.open(options.artifact) as classify, open_source(options.source) as source:
            for event in stream(classify, source, rule=rule):
                if event.decision.changed:
                    print(f"{line(event)}  {source.status().fps:.0f} fps", flush=True)
                if options.window and not shown(event):
                    break
    except KeyboardInterrupt:
        return 0
    except EdgeclfError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def line(event: Event) -> str:
    """What is believed, how strongly, and how old the frame was by then."""
    decision = event.decision
    return f"{decision.label or '(nothing)'}  {decision.score:.2f}  {event.age_ms:.0f} ms old"


def shown(event: Event) -> bool:
    """Show the frame with its decision; False when q was pressed."""
    import cv2

    frame = event.frame
    image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR) if frame.color == "rgb" else frame.image.copy()
    cv2.putText(image, line(event), (10, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (0, 255, 0), 2)
    cv2.imshow("edgeclf", image)
    return cv2.waitKey(1) != ord("q")


if __name__ == "__main__":
    sys.exit(main())
