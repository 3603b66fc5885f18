defmodule Mlx.GraphTest do
  use ExUnit.Case, async: true
  use Mlx.Graph

  @f32 {:f, 32}

  test "an input is its register" do
    assert flatten([input(3, @f32, {2})], 5) == {[], [3]}
  end

  test "operands come before what uses them" do
    [a, b] = inputs(2)
    sum = op(:add, [a, b], @f32, {2})
    total = op(:sum, [sum], [[0], true], @f32, {1})
    assert flatten([total], 2) == {[{:add, [0, 1], []}, {:sum, [2], [[0], true]}], [3]}
  end

  test "what is used twice runs once" do
    [a] = inputs(1)
    square = op(:multiply, [a, a], @f32, {2})
    difference = op(:subtract, [square, square], @f32, {2})
    quartic = op(:multiply, [square, difference], @f32, {2})

    assert flatten([quartic], 1) ==
             {[{:multiply, [0, 0], []}, {:subtract, [1, 1], []}, {:multiply, [1, 2], []}], [3]}
  end

  test "equal operations of different calls stay apart" do
    [a] = inputs(1)
    negate = fn -> op(:negate, [a], @f32, {2}) end
    sum = op(:add, [negate.(), negate.()], @f32, {2})

    assert {[{:negate, [0], []}, {:negate, [0], []}, {:add, [1, 2], []}], [3]} =
             flatten([sum], 1)
  end

  test "operations without operands start after the inputs" do
    numbers = op(:arange, [], [3, {:s, 32}], {:s, 32}, {3})
    assert flatten([numbers], 4) == {[{:arange, [], [3, {:s, 32}]}], [4]}
  end

  test "several nodes share what they have in common" do
    [a] = inputs(1)
    negative = op(:negate, [a], @f32, {2})
    sum = op(:add, [a, negative], @f32, {2})
    instructions = [{:negate, [0], []}, {:add, [0, 1], []}]
    assert flatten([sum, negative, a, sum], 1) == {instructions, [2, 1, 0, 2]}
  end

  test "a row on all inputs in their order is a single one" do
    [a, b] = inputs(2)
    assert single?(op(:add, [a, b], @f32, {2}), 2)
    assert single?(op(:arange, [], [3, {:s, 32}], {:s, 32}, {3}), 0)

    refute single?(a, 1)
    refute single?(op(:add, [b, a], @f32, {2}), 2)
    refute single?(op(:add, [a, a], @f32, {2}), 1)
    refute single?(op(:negate, [a], @f32, {2}), 2)
    refute single?(op(:negate, [op(:negate, [a], @f32, {2})], @f32, {2}), 1)
    [_, vectors] = ops(:eigh, [a], [{@f32, {2}}, {@f32, {2, 2}}])
    refute single?(vectors, 1)
  end

  test "the rows a module uses are remembered" do
    assert Enum.sort(rows()) == [:add, :arange, :eigh, :multiply, :negate, :subtract, :sum]
    assert rows() -- Mlx.Graph.table() == []
  end

  describe "when it is compiled, a lowering is refused" do
    test "with a row that isn't there" do
      assert_raise CompileError, ~r/the op table has no row :frobnicate/, fn ->
        compile(quote(do: op(:frobnicate, [x], x.type, x.shape)))
      end
    end

    test "with another number of operands" do
      assert_raise CompileError, ~r/add takes 2 operands/, fn ->
        compile(quote(do: op(:add, [x], x.type, x.shape)))
      end
    end

    test "with another number of results" do
      assert_raise CompileError, ~r/negate has 1 results/, fn ->
        compile(quote(do: ops(:negate, [x], [{x.type, x.shape}, {x.type, x.shape}])))
      end
    end

    test "with another number of attributes" do
      assert_raise CompileError, ~r/sum takes the attributes \["axes", "keep"\]/, fn ->
        compile(quote(do: op(:sum, [x], [[0]], x.type, x.shape)))
      end
    end
  end

  defp inputs(count), do: for(register <- 0..(count - 1), do: input(register, @f32, {2}))

  defp compile(body) do
    Code.eval_quoted(
      quote do
        defmodule Mlx.GraphTest.Refused do
          use Mlx.Graph
          def lower(x), do: unquote(body)
        end
      end
    )
  end
end
