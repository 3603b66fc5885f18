defmodule Mlx.Compiler.LoopTest do
  @moduledoc """
  Which loops count, and that they do it as `Nx.Defn.Evaluator` does.
  """

  use ExUnit.Case, async: true
  import Mlx.Oracle, only: [assert_identical: 2]
  import Mlx.Programs
  import Nx.Defn

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  # Where the counter starts, whether it goes on, and what comes next.
  counted = [
    less: {"0", "i < 5", "i + 1"},
    less_equal: {"0", "i <= 5", "i + 2"},
    greater: {"9", "i > 1", "i - 3"},
    greater_equal: {"9", "i >= 0", "i - 3"},
    number_first: {"0", "5 > i", "2 + i"},
    number_first_or_equal: {"0", "6 >= i", "2 + i"},
    downwards: {"5", "0 < i", "i + -2"},
    downwards_or_equal: {"6", "0 <= i", "-2 + i"},
    not_at_all: {"5", "i < 5", "i + 1"},
    far_beyond: {"50", "i < 5", "i + 1"},
    once: {"0", "i < 1", "i + 100"},
    unsigned: {"Nx.u8(200)", "i < 250", "i + 5"},
    to_the_last: {"Nx.s8(120)", "i < 127", "i + 1"},
    to_the_first: {"Nx.s8(-120)", "i > -128", "i - 1"},
    wide: {"Nx.s64(9_000_000_000)", "i < Nx.s64(9_000_000_005)", "i + Nx.s64(1)"}
  ]

  others = [
    equal: {"0", "i != 5", "i + 1"},
    float: {"0.0", "i < 0.5", "i + 0.1"},
    product: {"1", "i < 50", "i * 2"},
    difference: {"7", "i > 0", "5 - i"},
    narrow: {"Nx.tensor(0, type: :u4)", "i < 5", "i + 1"},
    wrapping: {"Nx.u8(250)", "i >= 250", "i + 1"},
    wrapping_below: {"Nx.u8(2)", "i <= 2", "i - 1"},
    of_a_vector: {"Nx.tensor([0])", "i[0] < 5", "i + 1"},
    beyond_its_type: {"Nx.s64(9_000_000_000)", "i < 9_000_000_005", "i + 1"},
    with_more: {"0", "i < 5 and i < 7", "i + 1"}
  ]

  for {name, codes} <- counted ++ others do
    [start, condition, step] = for code <- Tuple.to_list(codes), do: Code.string_to_quoted!(code)

    defn unquote(name)(x) do
      while {x, i = unquote(start)}, unquote(condition) do
        {x * 2 + Nx.sum(i), unquote(step)}
      end
    end
  end

  for {names, row} <- [{Keyword.keys(counted), :repeat}, {Keyword.keys(others), :while}],
      name <- names do
    test "#{name} is a #{row}" do
      fun = Function.capture(__MODULE__, unquote(name), 1)
      assert unquote(row) in rows(fun, [Nx.template({2}, :f32)])
      x = Nx.tensor([1.0, 2.0])
      got = Nx.Defn.jit_apply(fun, [x], compiler: Mlx.Compiler)
      assert_identical(got, Nx.Defn.jit_apply(fun, [x], compiler: Nx.Defn.Evaluator))
    end
  end
end
