"""Orders for kernels: each is taken once, by the thread that it is for."""

from esperd.bridge.kernel_orders import KernelOrders
from esperd.leyline.kernels import KernelOrder


def test_orders_to_open_are_no_mail_for_the_trainer():
    """They come in order, and at the end None."""
    woken: list[bool] = []
    orders = KernelOrders(lambda: woken.append(True))
    asked = [KernelOrder(name, name) for name in "ab"]
    for order in asked:
        orders.open(order)
    assert not orders.has_mail
    assert not woken
    orders.end()
    assert [orders.next_to_open() for _ in range(3)] == [*asked, None]


def test_what_is_to_be_closed_and_what_was_opened_waits_for_the_trainer():
    """Both wake it, and are mail until it has looked."""
    woken: list[bool] = []
    orders = KernelOrders(lambda: woken.append(True))
    orders.close("a")
    orders.close("a")
    orders.tell()
    assert orders.has_mail
    assert len(woken) == 3
    assert orders.take_to_close() == {"a"}
    assert not orders.has_mail
