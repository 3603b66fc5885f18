defmodule Mlx.Examples.FineTuningTest do
  use ExUnit.Case, async: false
  alias Mlx.Example

  # The example has them.
  @compile {:no_warn_undefined, [Perceptron, Tuning]}

  setup do
    on_exit(fn -> Example.forget([Tuning]) end)
    Example.on_cpu()
  end

  test "each way learns what the network could not read" do
    output = Example.run("fine_tuning")

    rows =
      for [_, way, learns, right] <- Regex.scan(~r/^(.+?) {2,}(\d+) +([\d.]+) %$/m, output),
          into: %{},
          do: {way, {String.to_integer(learns), String.to_float(right)}}

    assert map_size(rows) == 4
    assert {0, before} = rows["the network as it was"]
    assert before < 20
    assert {650, head} = rows["a new last layer"]
    assert {808, adapters} = rows["adapters, on weights in 4 bits"]
    assert {4810, all} = rows["all weights, in f16"]
    assert head > 85 and adapters > 85 and all > 90
    assert output =~ ~r/adapters saved: \d{4} bytes, the same again: true/

    # The gradients go through the packed weights.
    packed = Tuning.pack(Perceptron.init(1) |> elem(0))
    fresh = Tuning.adapters(Nx.Random.key(1))

    gradient = fn adapters, packed, images ->
      Nx.Defn.grad(adapters, &Nx.sum(Tuning.adapted(&1, packed, images)))
    end

    arguments = [fresh, packed, Nx.iota({2, 64}, type: :f32)]
    program = inspect(Mlx.Compiler.program(gradient, arguments))
    assert program =~ "quantized_matmul("
    refute program =~ "dequantize("
  end
end
