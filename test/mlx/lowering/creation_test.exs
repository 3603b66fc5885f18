defmodule Mlx.Lowering.CreationTest do
  use Mlx.LoweringCase, family: Mlx.Lowering.Creation, async: true

  for type <- types() do
    check(:iota, "of #{type}", [{3, 4}, [type: type]])
    check(:iota, "along an axis of #{type}", [{3, 4, 2}, [type: type, axis: 1]])
    check(:eye, "of #{type}", [3, [type: type]])
  end

  check(:iota, "of a scalar", [{}, [type: :u8]])
  check(:iota, "of one dimension", [{7}])
  check(:iota, "past the bounds of its type", [{300}, [type: :u8]])
  check(:iota, "past the bounds of a signed type", [{2, 300}, [type: :s8, axis: 1]])
  check(:iota, "past what f16 holds exactly", [{2100}, [type: :f16]])
  check(:iota, "with names", [{2, 3}, [names: [:x, :y], axis: :y]])
  check(:iota, "with a negative axis", [{2, 3}, [axis: -1]])

  check(:eye, "wider than high", [{2, 4}])
  check(:eye, "higher than wide", [{4, 2}])
  check(:eye, "of a batch", [{2, 2, 3, 3}, [type: :s64]])
  check(:eye, "with names", [{2, 2}, [names: [:x, :y]]])

  # Nx makes constants of the backend from numbers; in an expression they have no operation.
  @checked :constant

  for type <- integers() do
    test "constant of the bounds of #{type}" do
      for number <- Tuple.to_list(bounds(unquote(type))) do
        assert_same(&Nx.tensor(&1, type: unquote(type)), [number])
      end
    end
  end

  for type <- floats() do
    test "constant of #{type}" do
      for number <- [0.0, -0.0, 1.0, -2.5, 1.0e-3, 3, :nan, :infinity, :neg_infinity] do
        assert_same(&Nx.tensor(&1, type: unquote(type)), [number])
      end
    end
  end

  test "constant of c64" do
    for number <- [Complex.new(1.5, -2.0), Complex.new(0.0, -0.0), Complex.new(:nan, :infinity)] do
      assert_same(&Nx.tensor(&1, type: :c64), [number])
    end

    assert_same(&Nx.tensor(&1, type: :c64), [2.5])
  end

  test "constant of a shape" do
    template = Nx.template({2, 3}, :f32, names: [:x, nil])
    got = Mlx.Backend.constant(template, 2.5, [])
    assert_equivalent(got, Nx.BinaryBackend.constant(template, 2.5, []))
  end
end
