defmodule Mlx.GradientTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  alias Mlx.GradientCases

  # Of double precision, half of whose digits the step and half the difference take.
  @step 2.0 ** -18

  setup_all do
    %{cases: GradientCases.all()}
  end

  for {{{op, description}, _fun, _args, options}, at} <-
        Enum.with_index(GradientCases.all()),
      type <- options[:types] || [:f32, :f64] do
    @tag at: at, type: type
    test "#{inspect(op)} #{description} in #{type}", %{cases: cases, at: at, type: type} do
      {{op, _}, fun, args, options} = Enum.at(cases, at)
      args = cast(args, type)
      assert op in operations(fun, args)
      close = if type == :f64, do: options[:close_f64], else: nil
      assert_same(GradientCases.gradient(fun), [args], close || options[:close] || [])
    end
  end

  for {{{op, description}, _fun, _args, options}, at} <- Enum.with_index(GradientCases.all()) do
    @tag at: at
    @tag f64: options[:f64] || List.last(options[:types] || [:f64]) == :f64
    test "#{inspect(op)} #{description} is the limit of differences", %{cases: cases, at: at} do
      {_name, fun, args, options} = Enum.at(cases, at)
      type = List.last(options[:types] || [:f64])
      args = cast(args, type)

      for way <- ways() do
        expected = differences(way, fun, args, options[:step] || @step)
        got = run(way, GradientCases.gradient(fun), [args])
        got = got |> Tuple.to_list() |> Enum.flat_map(&Nx.to_flat_list/1)
        assert length(got) == length(expected)
        pairs = Enum.zip(got, expected)
        near? = Enum.all?(pairs, fn {got, expected} -> near?(got, expected, type) end)
        assert near? == (options[:nx] == nil), inspect(pairs, limit: :infinity)
      end
    end
  end

  test "Nx refuses some gradients" do
    for {op, fun, args} <- GradientCases.refused() do
      assert op in operations(fun, args)
      gradient = GradientCases.gradient(fun)

      for way <- ways() do
        assert_raise ArgumentError,
                     ~r/cannot compute gradient|gradient not yet implemented/,
                     fn -> run(way, gradient, [args]) end
      end
    end
  end

  test "every operation and every block has a case" do
    cases = for {{op, _description}, _fun, _args, _options} <- GradientCases.all(), do: op
    refused = for {op, _fun, _args} <- GradientCases.refused(), do: op
    assert (Mlx.Lowering.ops() ++ blocks()) -- (cases ++ refused) == []
  end

  defp cast(args, type) do
    for arg <- args, do: if(GradientCases.float?(arg), do: Nx.as_type(arg, type), else: arg)
  end

  # Central differences in each element of each float.
  defp differences(way, fun, args, step) do
    {floats, put} = GradientCases.floats(args)
    loss = fn floats -> Nx.to_number(run(way, GradientCases.loss(fun), [put.(floats)])) end

    for at <- 0..(tuple_size(floats) - 1), place <- 0..(Nx.size(elem(floats, at)) - 1) do
      [up, down] =
        for step <- [step, -step],
            do: loss.(put_elem(floats, at, moved(elem(floats, at), place, step)))

      (up - down) / (2 * step)
    end
  end

  defp moved(x, place, step) do
    numbers = x |> Nx.to_flat_list() |> List.update_at(place, &(&1 + step))
    Nx.reshape(Nx.tensor(numbers, type: x.type, backend: Nx.BinaryBackend), x)
  end

  # The gradient of a real number may be a complex one.
  defp near?(got, expected, type) do
    abs(Complex.real(got) - expected) <= tolerance(type) * max(abs(expected), 1.0)
  end

  defp tolerance(:f64), do: 1.0e-6
  defp tolerance(:f32), do: 2.0e-3
end
