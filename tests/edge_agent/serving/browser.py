"""What a real browser makes of a page: `python browser.py URL` prints the DOM some seconds after it was loaded.

Chromium as Qt carries it, without a window. What the page's console says goes to standard error. A process of its own,
since Qt wants to be the main loop.
"""

import sys

from PySide6.QtCore import QTimer, QUrl
from PySide6.QtWebEngineCore import QWebEnginePage
from PySide6.QtWidgets import QApplication

SETTLES_MILLISECONDS = 4000


class Page(QWebEnginePage):
    def javaScriptConsoleMessage(self, level, message, line, source):
        print(f"console: {message} ({source}:{line})", file=sys.stderr)


def main() -> int:
    application = QApplication(sys.argv[:1])
    page = Page()

    def loaded(good: bool) -> None:
        if not good:
            print("the page was not loaded", file=sys.stderr)
            application.exit(1)
        QTimer.singleShot(SETTLES_MILLISECONDS, lambda: page.toHtml(shown))

    def shown(dom: str) -> None:
        print(dom)
        application.exit(0)

    page.loadFinished.connect(loaded)
    page.load(QUrl(sys.argv[1]))
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())
