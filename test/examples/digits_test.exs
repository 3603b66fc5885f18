defmodule Mlx.Examples.DigitsTest do
  use ExUnit.Case, async: false
  import ExUnit.CaptureIO

  @script "examples/digits.exs"

  # On a GPU the order of additions is not the same every time.
  setup do
    default = Mlx.Device.default()
    Mlx.Device.set_default(:cpu)
    backend = Nx.default_backend()

    on_exit(fn ->
      Mlx.Device.set_default(default)
      Nx.default_backend(backend)
    end)
  end

  test "the demo learns to read digits, the same way every time, compiled or not" do
    first = accuracies()
    assert %{"eager" => accuracy, "compiled" => accuracy} = first
    assert accuracy >= 96.0
    assert accuracies() == first
  end

  defp accuracies do
    output = capture_io(fn -> Code.eval_file(@script) end)
    :code.purge(Digits)
    :code.delete(Digits)
    assert output =~ ~r/device: cpu/

    for [_, name, accuracy] <- Regex.scan(~r/^(\w+) +[0-9.]+ +([0-9.]+) %$/m, output),
        into: %{},
        do: {name, String.to_float(accuracy)}
  end
end
