defmodule Mlx.DebugTest do
  # The settings are ones of compile time: a VM of its own compiles the callers with them.
  use ExUnit.Case, async: true

  @bounds [
    gather: "Nx.gather(x, Nx.tensor([[0, 0], [2, 3]]))",
    gather_row: "Nx.gather(x, Nx.tensor([2, 3]))",
    gather_axes: "Nx.gather(x, Nx.tensor([[3], [0]]), axes: [1])",
    gather_low: "Nx.gather(x, Nx.tensor([[0, -1]]))",
    gather_high: "Nx.gather(x, Nx.tensor([[1, 1], [0, 4]]))",
    gather_first_axis: "Nx.gather(x, Nx.tensor([[3, 1]]))",
    gather_axes_high: "Nx.gather(x, Nx.tensor([[3]]), axes: [0])",
    gather_row_high: "Nx.gather(x, Nx.tensor([3, 0]))",
    gather_u64: "Nx.gather(x, Nx.tensor([[0, 18_446_744_073_709_551_615]], type: :u64))",
    gather_u4: "Nx.gather(x, Nx.tensor([[0, 15]], type: :u4))",
    take: "Nx.take(x, Nx.tensor([[0, 2], [1, 1]]))",
    take_axis: "Nx.take(x, Nx.tensor([3]), axis: 1)",
    take_high: "Nx.take(x, Nx.tensor([[0, 3], [1, 1]]))",
    take_low: "Nx.take(x, Nx.tensor(-1), axis: 1)",
    along: "Nx.take_along_axis(x, Nx.tensor([[0, 2, 1, 0]]), axis: 0)",
    along_high: "Nx.take_along_axis(x, Nx.tensor([[0, 2, 1, 3]]), axis: 0)",
    add: "Nx.indexed_add(x, Nx.tensor([[2, 3], [2, 3]]), Nx.tensor([1, 1]))",
    add_high: "Nx.indexed_add(x, Nx.tensor([[2, 3], [2, 4]]), Nx.tensor([1, 1]))",
    put: "Nx.indexed_put(x, Nx.tensor([[2], [0]]), Nx.iota({2, 4}), axes: [0])",
    put_high: "Nx.indexed_put(x, Nx.tensor([[3], [0]]), Nx.iota({2, 4}), axes: [0])",
    branch: "Control.choose(x, Nx.tensor([7]))",
    other_branch: "Control.choose(Nx.negate(x), Nx.tensor([7]))",
    loop: "Control.climb(x)",
    slice: "Nx.slice(x, [Nx.tensor(9), Nx.tensor(-9)], [2, 2])",
    put_slice: "Nx.put_slice(x, [Nx.tensor(9), Nx.tensor(-9)], Nx.tensor([[1]]))"
  ]

  @finite [
    log: "Nx.log(Nx.tensor([1.0, 0.0]))",
    sqrt: "Nx.sqrt(Nx.tensor([-1.0], type: :bf16))",
    divide: "Nx.divide(Nx.tensor([0.0, 1.0]), Nx.tensor([0.0, 0.0]))",
    overflow: "Nx.exp(Nx.tensor([1.0e3]))",
    narrow: "Nx.multiply(Nx.tensor([5.0e4], type: :f8), Nx.tensor([2], type: :f8))",
    cast: "Nx.as_type(Nx.tensor([1.0e6]), :f16)",
    complex: "Nx.divide(Nx.Constants.i(), Nx.tensor([0.0]))",
    masked:
      "(m = Nx.broadcast(Nx.Constants.neg_infinity(), {3}); Nx.subtract(m, Nx.reduce_max(m)))",
    determinant: "Nx.LinAlg.determinant(Nx.tensor([[1.0e30, 0.0], [0.0, 1.0e30]]))",
    tuple: "Nx.LinAlg.eigh(Nx.tensor([[1.0, 2.0], [2.0, :nan]]), max_iter: 1)",
    fold: "Nx.reduce(Nx.tensor([1.0, 0.0]), 1.0, fn a, b -> Nx.divide(b, a) end)",
    constants: "Nx.stack([Nx.Constants.nan(), Nx.Constants.infinity(), Nx.tensor(:nan)])",
    constant_op: "Nx.select(Nx.tensor([1, 0]), Nx.Constants.neg_infinity(), Nx.tensor(2.0))",
    inherited: "Nx.add(Nx.tensor([:nan, :infinity]), 1)",
    integers: "Nx.quotient(Nx.tensor([5]), Nx.tensor([0]))",
    too_large: "Nx.concatenate([Nx.tensor([1.0]), Nx.broadcast(1.0e300, {1})])",
    fine: "Nx.sum(Nx.exp(Nx.iota({10}, type: :f32)))"
  ]

  # The outcome of each case: a list of numbers, or the error.
  defp outcomes(setting, cases, compiled?) do
    paths = for path <- Mlx.OwnVm.paths(), do: ["-pa", path]

    code = """
    Application.put_env(:mlx, :#{setting}, true)
    Code.put_compiler_option(:ignore_module_conflict, true)
    for file <- ["dispatch", "compiler/expression"], do: Code.compile_file("lib/mlx/\#{file}.ex")
    {:ok, _} = Application.ensure_all_started(:mlx)
    Mlx.TestDevice.start()
    Nx.default_backend(Mlx.Backend)

    defmodule Control do
      import Nx.Defn

      defn choose(x, at), do: if(Nx.sum(x) > 0, do: Nx.take(x, at), else: x[0..0])

      defn climb(x) do
        {_, x} =
          while {i = 0, x}, i < 5 do
            at = Nx.reshape(Nx.stack([i, 0]), {1, 2})
            {i + 1, Nx.indexed_add(x, at, Nx.tensor([1]))}
          end

        x
      end
    end

    outcomes =
      for {name, code} <- #{inspect(cases, limit: :infinity, printable_limit: :infinity)} do
        x = Nx.iota({3, 4})
        code = if #{compiled?},
          do: "Nx.Defn.jit_apply(fn x -> \#{code} end, [x], compiler: Mlx.Compiler)",
          else: code

        compute = fn -> code |> Code.eval_string(x: x) |> elem(0) end
        # Reading happens outside: the operation itself has to raise.
        result = try do compute.() rescue error in Mlx.Error -> error end
        numbers = fn -> result |> List.wrap() |> Nx.Defn.Composite.flatten_list() |> Enum.map(&Nx.to_flat_list/1) end
        {name, if(is_exception(result), do: result, else: numbers.())}
      end

    IO.puts("outcomes " <> Base.encode64(:erlang.term_to_binary(outcomes)))
    """

    args = List.flatten(paths) ++ ["-e", code]
    {output, status} = System.cmd("elixir", args, stderr_to_stdout: true)
    assert status == 0, output
    [_, encoded] = Regex.run(~r/^outcomes (.*)$/m, output)
    encoded |> Base.decode64!() |> :erlang.binary_to_term()
  end

  test "debug_bounds_check raises at the operation" do
    outcomes = outcomes(:debug_bounds_check, @bounds, false)

    for {name, index, axis, places} <- [
          {:gather_low, -1, 1, 4},
          {:gather_high, 4, 1, 4},
          {:gather_first_axis, 3, 0, 3},
          {:gather_axes_high, 3, 0, 3},
          {:gather_row_high, 3, 0, 3},
          {:gather_u64, 18_446_744_073_709_551_615, 1, 4},
          {:gather_u4, 15, 1, 4},
          {:take_high, 3, 0, 3},
          {:take_low, -1, 1, 4},
          {:along_high, 3, 0, 3},
          {:add_high, 4, 1, 4},
          {:put_high, 3, 0, 3},
          {:branch, 7, 0, 3},
          {:loop, 3, 0, 3}
        ] do
      assert %Mlx.Error{kind: :value, message: message} = outcomes[name]
      assert message =~ "index #{index} is out of bounds for axis #{axis}, which has #{places}"
    end

    assert outcomes[:gather_low].op == "gather"
    assert outcomes[:take_low].op == "take"
    assert outcomes[:along_high].op == "take_along_axis"
    assert outcomes[:add_high].op == "indexed_add"
    assert outcomes[:put_high].op == "indexed_put"
    assert outcomes[:gather_high].operands == [{"s32", {3, 4}}, {"s32", {2, 2}}]
    assert outcomes[:gather_high].message =~ "gather(s32{3, 4}, s32{2, 2})"

    assert outcomes[:other_branch] == [[0, -1, -2, -3]]
    assert outcomes[:gather] == [[0, 11]]
    assert outcomes[:gather_row] == [[11]]
    assert outcomes[:gather_axes] == [[3, 7, 11, 0, 4, 8]]
    assert outcomes[:take] |> hd() |> Enum.take(8) == [0, 1, 2, 3, 8, 9, 10, 11]
    assert outcomes[:take_axis] == [[3, 7, 11]]
    assert outcomes[:along] == [[0, 9, 6, 3]]
    assert outcomes[:add] |> hd() |> List.last() == 13
    assert outcomes[:put] |> hd() |> Enum.drop(8) == [0, 1, 2, 3]
    assert outcomes[:slice] == [[4, 5, 8, 9]]
    assert outcomes[:put_slice] == [[0, 1, 2, 3, 4, 5, 6, 7, 1, 9, 10, 11]]
  end

  test "debug_detect_nan_inf raises at the operation" do
    outcomes = outcomes(:debug_detect_nan_inf, @finite, false)

    for {name, op, what} <- [
          {:log, "log", "an infinity"},
          {:sqrt, "sqrt", "NaN"},
          {:divide, "divide", "NaN and an infinity"},
          {:overflow, "exp", "an infinity"},
          {:narrow, "multiply", "an infinity"},
          {:cast, "as_type", "an infinity"},
          {:complex, "divide", "NaN"},
          {:masked, "subtract", "NaN"},
          {:determinant, "determinant", "an infinity"},
          {:fold, "reduce", "an infinity"}
        ] do
      assert %Mlx.Error{kind: :value, op: ^op, message: message} = outcomes[name]
      assert message =~ "the result has #{what}"
    end

    assert outcomes[:divide].operands == [{"f32", {2}}, {"f32", {2}}]
    assert [_values, _vectors] = outcomes[:tuple]
    assert outcomes[:constants] == [[:nan, :infinity, :nan]]
    assert outcomes[:constant_op] == [[:neg_infinity, 2.0]]
    assert outcomes[:inherited] == [[:nan, :infinity]]
    assert outcomes[:too_large] == [[1.0, :infinity]]
    assert [[_]] = outcomes[:integers]
    assert_in_delta hd(hd(outcomes[:fine])), 12818.3, 0.1
  end

  for {setting, cases} <- [debug_bounds_check: @bounds, debug_detect_nan_inf: @finite] do
    test "#{setting} does the same in compiled functions" do
      eager = outcomes(unquote(setting), unquote(cases), false)
      compiled = outcomes(unquote(setting), unquote(cases), true)
      for {name, outcome} <- eager, do: assert({name, compiled[name]} == {name, outcome})
      assert Keyword.keys(compiled) == Keyword.keys(eager)
    end
  end

  test "without the settings nothing is left of the checks" do
    for {module, call} <- [
          {Mlx.Dispatch, {Mlx.Native, :stream_run, 4}},
          {Mlx.Compiler.Expression, {Mlx.Graph, :constant?, 1}}
        ] do
      {:ok, {_, [imports: imports]}} = module |> :code.which() |> :beam_lib.chunks([:imports])
      assert call in imports
      assert for({Mlx.Debug, _, _} = call <- imports, do: call) == []
    end
  end
end
